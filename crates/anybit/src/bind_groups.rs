//! Bind groups that are kept, so that preparing a plan with the same operands again makes nothing new.
//!
//! wgpu's bind groups hold their buffers. What is kept must therefore not outlive the matrices: each has a [`Life`], whose
//! end takes all bind groups away that it is in.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// How many bind groups a context keeps. Past it the one goes whose last use is the longest ago.
const MOST: usize = 1024;

/// The life of a matrix's buffer: all clones of the matrix share it, and it ends with the last.
#[derive(Debug)]
pub(crate) struct Life {
    id: u64,
    /// Who keeps bind groups with this buffer, if anybody does.
    keeper: OnceLock<Weak<BindGroups>>,
}

impl Life {
    pub(crate) fn new() -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            keeper: OnceLock::new(),
        })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get().and_then(Weak::upgrade) {
            keeper.forget(self.id);
        }
    }
}

/// An operand as it is bound, its place in its matrix (offset and size in bytes; of textures, which of the two), and the
/// matrix's life.
pub(crate) type BoundOperand<'a> = (wgpu::BindingResource<'a>, [u64; 2], &'a Arc<Life>);

/// All that a bind group is made of.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    layout: wgpu::BindGroupLayout,
    params: Box<[u8]>,
    /// Life and place of each operand.
    operands: Box<[(u64, u64, u64)]>,
}

impl Key {
    pub(crate) fn new(
        layout: &wgpu::BindGroupLayout,
        params: &[u8],
        operands: &[BoundOperand<'_>],
    ) -> Self {
        Self {
            layout: layout.clone(),
            params: params.into(),
            operands: operands
                .iter()
                .map(|(_, [offset, size], life)| (life.id, *offset, *size))
                .collect(),
        }
    }
}

/// What a dispatch binds at a number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoundResource {
    /// Bytes of a buffer.
    Buffer {
        /// The buffer.
        buffer: wgpu::Buffer,
        /// The first byte.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
    /// A texture, all of it, as a storage texture.
    Texture(wgpu::Texture),
}

impl BoundResource {
    /// `None` for what no kernel binds.
    fn new(resource: &wgpu::BindingResource<'_>) -> Option<Self> {
        match resource {
            wgpu::BindingResource::Buffer(binding) => Some(Self::Buffer {
                buffer: binding.buffer.clone(),
                offset: binding.offset,
                size: match binding.size {
                    Some(size) => size.get(),
                    None => binding.buffer.size() - binding.offset,
                },
            }),
            wgpu::BindingResource::TextureView(view) => Some(Self::Texture(view.texture().clone())),
            _ => None,
        }
    }
}

/// A bind group, with what it binds by number. Both hold the buffers.
#[derive(Clone, Debug)]
pub(crate) struct BoundGroup {
    pub(crate) bind_group: wgpu::BindGroup,
    pub(crate) resources: Arc<[BoundResource]>,
}

impl BoundGroup {
    pub(crate) fn new(bind_group: wgpu::BindGroup, entries: &[wgpu::BindGroupEntry<'_>]) -> Self {
        let resources = entries.iter();
        let resources = resources.filter_map(|entry| BoundResource::new(&entry.resource));
        Self {
            bind_group,
            resources: resources.collect(),
        }
    }
}

#[derive(Debug)]
struct Kept {
    group: BoundGroup,
    last_use: u64,
}

#[derive(Debug, Default)]
struct State {
    kept: HashMap<Key, Kept>,
    uses: u64,
}

/// The bind groups of a context that are kept.
#[derive(Debug, Default)]
pub(crate) struct BindGroups {
    state: Mutex<State>,
}

impl BindGroups {
    pub(crate) fn len(&self) -> usize {
        self.lock().kept.len()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<BoundGroup> {
        let mut state = self.lock();
        state.uses += 1;
        let now = state.uses;
        let kept = state.kept.get_mut(key)?;
        kept.last_use = now;
        Some(kept.group.clone())
    }

    /// Keeps a bind group as long as the matrices are there that it is of.
    pub(crate) fn keep<'a>(
        self: &Arc<Self>,
        key: Key,
        group: &BoundGroup,
        mut lives: impl Iterator<Item = &'a Arc<Life>>,
    ) {
        // A matrix that two contexts use ends for the first alone.
        let told = lives.all(|life| {
            let keeper = life.keeper.get_or_init(|| Arc::downgrade(self));
            std::ptr::eq(keeper.as_ptr(), Arc::as_ptr(self))
        });
        if !told {
            return;
        }
        let mut state = self.lock();
        let mut gone = None;
        if state.kept.len() >= MOST {
            let oldest = state.kept.values().map(|kept| kept.last_use).min();
            state.kept.retain(|_, kept| {
                let stays = Some(kept.last_use) != oldest;
                if !stays {
                    gone = Some(kept.group.clone());
                }
                stays
            });
        }
        state.uses += 1;
        let kept = Kept {
            group: group.clone(),
            last_use: state.uses,
        };
        state.kept.insert(key, kept);
        // wgpu lets go of buffers only when nobody is kept waiting for it.
        drop(state);
        drop(gone);
    }

    fn forget(&self, id: u64) {
        let mut state = self.lock();
        let mut gone = Vec::new();
        state.kept.retain(|key, kept| {
            let stays = key.operands.iter().all(|&(operand, ..)| operand != id);
            if !stays {
                gone.push(kept.group.clone());
            }
            stays
        });
        drop(state);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
