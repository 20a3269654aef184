//! The families of GPUs that are compiled for, by Mesa's names.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Family {
    /// RDNA 3: Radeon RX 7900
    Gfx1100,
    /// RDNA 2: Radeon RX 6800 and 6900
    Navi21,
    /// RDNA 1, without packed dot products: Radeon RX 5700
    Navi10,
    /// GCN 5.1: Radeon VII
    Vega20,
    /// GCN 5, without packed dot products: Radeon RX Vega
    Vega10,
}

impl Family {
    /// What is compiled for if nothing else is asked for: the families with packed dot products.
    pub(crate) const USUAL: [Self; 3] = [Self::Gfx1100, Self::Navi21, Self::Vega20];

    /// Whose figures are kept: those that aims are for.
    pub(super) const KEPT: [Self; 2] = [Self::Gfx1100, Self::Navi21];

    /// Mesa's name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Gfx1100 => "gfx1100",
            Self::Navi21 => "navi21",
            Self::Navi10 => "navi10",
            Self::Vega20 => "vega20",
            Self::Vega10 => "vega10",
        }
    }

    /// What it is, as the command line's help has it.
    pub(super) fn about(self) -> String {
        self.to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string))
            .unwrap_or_default()
    }

    /// Whether the aims are for it.
    pub(super) fn has_aims(self) -> bool {
        Self::KEPT.contains(&self)
    }
}
