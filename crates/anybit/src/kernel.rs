//! The table of GEMM kernels. A kernel is one WGSL file, one file here, one reference file and one row; the lmul kernels
//! are the WGSL of the fma kernels with other products, those of integer_fma that of the swar kernels.

use std::fmt;

/// How products are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Engine {
    /// f32 multiply-add of floats and decoded codes.
    Fma,
    /// dot4I8Packed on bytes.
    Dot4,
    /// Bit counts over planes.
    Bitplane,
    /// Two products of codes a 32-bit multiply: what is fast where packed dot products are emulated.
    Swar,
    /// One product of codes an f32 multiply-add, or two where they are narrow: integers that f32 holds exactly.
    IntegerFma,
    /// [L-Mul](anybit_formats::LMul) in place of f32 multiplication: an emulation, taken only if asked for.
    LMul,
    /// Planes look sums of four activations up in tables of f32.
    Lut,
    /// The same with tables of signed bytes. The tables are rounded, so this engine is taken only where it is asked for.
    Lut8,
    /// Cooperative matrices (tensor cores) on operands that f16 holds exactly, with sums in f32: an experimental feature of
    /// wgpu, taken only on devices that have passed [`Context::self_check`](crate::Context::self_check) with the kernel.
    Matrix,
}

impl Engine {
    /// Every engine.
    pub const ALL: [Self; 9] = [
        Self::Fma,
        Self::Dot4,
        Self::Bitplane,
        Self::Matrix,
        Self::Swar,
        Self::IntegerFma,
        Self::Lut,
        Self::Lut8,
        Self::LMul,
    ];

    /// The engine's name in kernel ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fma => "fma",
            Self::Dot4 => "dot4",
            Self::Bitplane => "bitplane",
            Self::Swar => "swar",
            Self::IntegerFma => "integer_fma",
            Self::LMul => "lmul",
            Self::Lut => "lut",
            Self::Lut8 => "lut8",
            Self::Matrix => "matrix",
        }
    }

    /// Whether it multiplies floats, decoded or as they are, and not integers.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::Fma | Self::LMul)
    }
}

impl Engine {
    /// Whether it multiplies integers, exactly, and scales their sums.
    pub(crate) const fn is_integer(self) -> bool {
        matches!(
            self,
            Self::Dot4 | Self::Bitplane | Self::Swar | Self::IntegerFma
        )
    }

    /// Whether it looks products up in tables.
    pub(crate) const fn has_tables(self) -> bool {
        matches!(self, Self::Lut | Self::Lut8)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// How the work is shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Skeleton {
    /// Tiles of both operands in workgroup memory.
    Tiled,
    /// Activations broadcast across the subgroup.
    Subgroup,
    /// One to eight rows of X, K split over a team of invocations.
    Gemv,
}

/// The sizes that a kernel is specialised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows of X a workgroup.
    pub m: u32,
    /// Rows of W a workgroup.
    pub n: u32,
    /// Codes of K that lie in workgroup memory at once; 0 for skeletons that keep none there.
    pub k: u32,
    /// Rows of X an invocation; with the engine `matrix`, a subgroup.
    pub thread_m: u32,
    /// Rows of W an invocation; with the engine `matrix`, a subgroup.
    pub thread_n: u32,
    /// Invocations a workgroup.
    pub workgroup: u32,
    /// Invocations that share a row's K; 1 where each walks all of it.
    pub lanes: u32,
    /// Tiles of each operand in workgroup memory: 2 where the next is filled while others still multiply the last, so that a
    /// step takes one barrier.
    pub buffers: u32,
}

impl Tile {
    const fn tiled(m: u32, n: u32, k: u32, thread_m: u32, thread_n: u32) -> Self {
        Self {
            m,
            n,
            k,
            thread_m,
            thread_n,
            workgroup: (m / thread_m) * (n / thread_n),
            lanes: 1,
            buffers: 1,
        }
    }

    /// The same with two tiles that take turns.
    const fn double_buffered(self) -> Self {
        Self { buffers: 2, ..self }
    }

    /// Blocks of `block` rows of X and of W, each a subgroup's, by a workgroup of so many invocations.
    const fn matrix(m: u32, n: u32, k: u32, block: (u32, u32), workgroup: u32) -> Self {
        Self {
            m,
            n,
            k,
            thread_m: block.0,
            thread_n: block.1,
            workgroup,
            lanes: 1,
            buffers: 1,
        }
    }

    const fn subgroup(m: u32, thread_n: u32, workgroup: u32) -> Self {
        Self {
            m,
            n: thread_n * workgroup,
            k: 0,
            thread_m: m,
            thread_n,
            workgroup,
            lanes: 1,
            buffers: 1,
        }
    }

    const fn gemv(m: u32, thread_n: u32, workgroup: u32, lanes: u32) -> Self {
        Self {
            m,
            n: thread_n * (workgroup / lanes),
            k: 0,
            thread_m: m,
            thread_n,
            workgroup,
            lanes,
            buffers: 1,
        }
    }
}

/// A kernel of the table.
#[derive(Debug)]
pub struct KernelRow {
    /// The stem of its Rust file and its reference file, and of its WGSL file unless two engines share that.
    pub stem: &'static str,
    /// Its WGSL module.
    pub module: &'static str,
    /// How it multiplies.
    pub engine: Engine,
    /// How it shares the work out.
    pub skeleton: Skeleton,
    /// The tile sizes that it is made in.
    pub tiles: &'static [Tile],
}

/// Declares each kernel's module and its row.
macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*

        /// Every GEMM kernel.
        pub static KERNELS: &[&KernelRow] = &[$(&$name::ROW),*];
    };
}

kernels! {
    gemm_tiled_fma,
    gemm_tiled_dot4,
    gemm_tiled_bitplane,
    gemm_tiled_swar,
    gemm_tiled_integer_fma,
    gemm_tiled_lmul,
    gemm_tiled_matrix,
    gemm_subgroup_fma,
    gemm_subgroup_dot4,
    gemm_subgroup_bitplane,
    gemm_subgroup_lmul,
    gemm_subgroup_swar,
    gemm_subgroup_integer_fma,
    gemv_fma,
    gemv_dot4,
    gemv_bitplane,
    gemv_lmul,
    gemv_lut,
    gemv_lut8,
}
