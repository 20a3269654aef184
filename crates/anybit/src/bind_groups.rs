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

/// All that a bind group is made of.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    layout: wgpu::BindGroupLayout,
    params: Box<[u8]>,
    /// Life, offset and size of each operand.
    operands: Box<[(u64, u64, u64)]>,
}

impl Key {
    pub(crate) fn new(
        layout: &wgpu::BindGroupLayout,
        params: &[u8],
        operands: &[(wgpu::BufferBinding<'_>, &Arc<Life>)],
    ) -> Self {
        Self {
            layout: layout.clone(),
            params: params.into(),
            operands: operands
                .iter()
                .map(|(binding, life)| {
                    let size = binding.size.map_or(0, wgpu::BufferSize::get);
                    (life.id, binding.offset, size)
                })
                .collect(),
        }
    }
}

#[derive(Debug)]
struct Kept {
    bind_group: wgpu::BindGroup,
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

    pub(crate) fn get(&self, key: &Key) -> Option<wgpu::BindGroup> {
        let mut state = self.lock();
        state.uses += 1;
        let now = state.uses;
        let kept = state.kept.get_mut(key)?;
        kept.last_use = now;
        Some(kept.bind_group.clone())
    }

    /// Keeps a bind group as long as the matrices are there that it is of.
    pub(crate) fn keep<'a>(
        self: &Arc<Self>,
        key: Key,
        bind_group: &wgpu::BindGroup,
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
                    gone = Some(kept.bind_group.clone());
                }
                stays
            });
        }
        state.uses += 1;
        let kept = Kept {
            bind_group: bind_group.clone(),
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
                gone.push(kept.bind_group.clone());
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
