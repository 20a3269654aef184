//! One comparison of a kernel with the reference.

use std::fmt;

use anybit::{
    Candidate, Caps, Engine, KERNELS, Memories, PlanOptions, Problem, Skeleton, Tile, candidates,
};
use anybit_formats::Memory;

use crate::operand::Fill;

/// A kernel of the table in one of its tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// How it multiplies.
    pub engine: Engine,
    /// How it shares the work out.
    pub skeleton: Skeleton,
    /// Its sizes.
    pub tile: Tile,
    /// What it reads operands from.
    pub memories: Memories,
    /// Parts that it splits K into; 1 if it does not.
    pub parts: u32,
    /// Whether it is to run on a device without optional features and with WebGPU's default limits.
    pub floor: bool,
}

impl Kernel {
    /// The kernels that can do a problem, as `candidates` lists them, without those that the options rule out; then those
    /// that must be asked for, as they emulate something or look sums up in tables. Where operands may lie in several kinds of
    /// memory, tiles take turns with them, and contracts begin at different ones.
    ///
    /// # Panics
    ///
    /// If the problem itself is refused.
    pub fn all_for(problem: &Problem, caps: &Caps, floor: bool) -> Vec<Self> {
        let (accepted, _) = candidates(problem, caps, &PlanOptions::default().with_uploaded(true))
            .unwrap_or_else(|error| panic!("{}: {error}", problem.contract()));
        let tables = [Engine::Lut, Engine::Lut8, Engine::LMul]
            .into_iter()
            .flat_map(|engine| {
                let options = PlanOptions::engine(engine).with_uploaded(true);
                let asked_for = candidates(problem, caps, &options);
                asked_for.map(|(accepted, _)| accepted).unwrap_or_default()
            });
        let tables: Vec<Candidate> = tables
            .filter(|table| accepted.iter().all(|other| other.engine != table.engine))
            .collect();
        let turn: usize = problem.contract().bytes().map(usize::from).sum();
        let all: Vec<Self> = accepted
            .into_iter()
            .chain(tables)
            .map(|candidate| Self {
                engine: candidate.engine,
                skeleton: candidate.skeleton,
                tile: candidate.tile,
                memories: candidate.memories,
                parts: candidate.parts,
                floor,
            })
            .collect();
        all.iter()
            .filter(|kernel| {
                let mut among: Vec<Memories> = all
                    .iter()
                    .filter(|other| {
                        let other = Self {
                            memories: kernel.memories,
                            ..**other
                        };
                        other == **kernel
                    })
                    .map(|other| other.memories)
                    .collect();
                // Not in the order of costs, which differs from device to device.
                among.sort_by_key(|memories| {
                    let textures = |memory| u8::from(memory != Memory::Buffers);
                    textures(memories.activation) + textures(memories.weight)
                });
                among[(kernel.place() + turn) % among.len()] == kernel.memories
            })
            .copied()
            .collect()
    }

    /// Which of its row's tiles it has.
    fn place(&self) -> usize {
        KERNELS
            .iter()
            .filter(|row| row.engine == self.engine && row.skeleton == self.skeleton)
            .find_map(|row| row.tiles.iter().position(|tile| *tile == self.tile))
            .unwrap_or(0)
    }

    /// The id of this kernel for a problem; `None` if it cannot do it.
    pub fn id(&self, problem: &Problem, caps: &Caps) -> Option<String> {
        let (accepted, _) = candidates(
            problem,
            caps,
            &PlanOptions::engine(self.engine)
                .with_uploaded(true)
                .with_parts(self.parts),
        )
        .ok()?;
        accepted
            .into_iter()
            .find(|candidate| {
                candidate.skeleton == self.skeleton
                    && candidate.tile == self.tile
                    && candidate.memories == self.memories
            })
            .map(|candidate| candidate.specialization.id)
    }

    /// One of a class of kernels, the cheapest to compile first: mostly a cheap one, in turn, and now and then a dear one.
    ///
    /// # Panics
    ///
    /// If the class is empty.
    pub fn in_turn(class: &[Self], turn: usize) -> Self {
        let cheap = class.len().div_ceil(3);
        match turn % 16 {
            15 if cheap < class.len() => class[cheap + turn / 16 % (class.len() - cheap)],
            _ => class[turn % cheap],
        }
    }

    /// Codes of K that one step of the kernel takes.
    pub fn step(&self, problem: &Problem) -> usize {
        let span = match problem.weight.element().bits() {
            32 => 4,
            16 => 8,
            _ => 32,
        };
        match self.skeleton {
            Skeleton::Tiled => self.tile.k as usize,
            _ => span * self.tile.lanes as usize,
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tile { m, n, k, .. } = self.tile;
        write!(formatter, "{} {:?} {m}x{n}x{k}", self.engine, self.skeleton)?;
        if self.memories != Memories::BUFFERS {
            write!(formatter, " {:?}", self.memories)?;
        }
        if self.parts != 1 {
            write!(formatter, " in {} parts", self.parts)?;
        }
        if self.floor {
            formatter.write_str(" on the floor")?;
        }
        Ok(())
    }
}

/// A problem with its operands, for one kernel.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is computed.
    pub problem: Problem,
    /// By which kernel.
    pub kernel: Kernel,
    /// How X and W are filled.
    pub fills: (Fill, Fill),
    /// Decides the operands, and whether they and the output lie in buffers of the caller.
    pub seed: u64,
}

impl Case {
    /// A case of random operands.
    pub fn new(problem: Problem, kernel: Kernel, seed: u64) -> Self {
        Self {
            problem,
            kernel,
            fills: (Fill::Random, Fill::Random),
            seed,
        }
    }

    /// The same, filled otherwise.
    #[must_use]
    pub fn with_fills(mut self, activation: Fill, weight: Fill) -> Self {
        self.fills = (activation, weight);
        self
    }

    /// Where an output index stands: batch, row, column, and the workgroup's tile.
    pub fn place(&self, index: usize) -> String {
        let (m, n) = (self.problem.m.max(1), self.problem.n.max(1));
        let (batch, row, column) = (index / (m * n), index / n % m, index % n);
        let (tile_m, tile_n) = (self.kernel.tile.m as usize, self.kernel.tile.n as usize);
        format!(
            "batch {batch}, row {row}, column {column}: element ({}, {}) of tile ({}, {})",
            row % tile_m,
            column % tile_n,
            row / tile_m,
            column / tile_n
        )
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { m, n, k, batch, .. } = &self.problem;
        write!(formatter, "M {m}, N {n}, K {k}")?;
        if batch.count != 1 {
            write!(formatter, ", {batch:?}")?;
        }
        write!(
            formatter,
            ", X {:?}, W {:?}, seed {:#x}",
            self.fills.0, self.fills.1, self.seed
        )
    }
}
