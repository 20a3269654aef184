//! From flags to formats and the options of quantisers.

use anybit::formats::{
    Calibration, ElementFormat, Granularity, MatrixFormat, QuantizeOptions, Rounding, ScaleLayout,
    ScaleType, ZeroKind,
};

use crate::cli::{ActivationScaleArguments, RoundingArguments, ScaleArguments, ScaleChoice};
use crate::error::Error;
use crate::output;

/// Which operand a format is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Weights,
    Activations,
    /// Neither: an array of values, scaled as weights are.
    Values,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Activations => "activations",
            Self::Values => "values",
        }
    }
}

/// What the flags change of a format.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Overrides {
    granularity: Option<Granularity>,
    scale: Option<ScaleChoice>,
    zero: Option<ZeroKind>,
    calibration: Option<Calibration>,
}

impl From<&ScaleArguments> for Overrides {
    fn from(arguments: &ScaleArguments) -> Self {
        Self {
            granularity: arguments.group,
            scale: arguments.scale,
            zero: arguments.zero.map(Into::into),
            calibration: arguments.calibration.map(Into::into),
        }
    }
}

impl From<&ActivationScaleArguments> for Overrides {
    fn from(arguments: &ActivationScaleArguments) -> Self {
        Self {
            granularity: arguments.activation_group,
            scale: arguments.activation_scale,
            zero: arguments.activation_zero.map(Into::into),
            calibration: arguments.activation_calibration.map(Into::into),
        }
    }
}

/// An operand's format before its number of columns is known.
#[derive(Clone, Debug)]
pub(crate) struct FormatChoice {
    name: String,
    role: Role,
    format: MatrixFormat,
    /// Whether nobody asked for the size of the groups.
    default_groups: bool,
    pub(crate) calibration: Option<Calibration>,
}

impl FormatChoice {
    /// The format of a name, with the changes.
    pub(crate) fn new(name: &str, role: Role, overrides: Overrides) -> Result<Self, Error> {
        let wrong = |source| Error::Operand {
            what: role.name(),
            source,
        };
        let named = match role {
            Role::Weights | Role::Values => MatrixFormat::parse_weight(name),
            Role::Activations => MatrixFormat::parse_activation(name),
        }
        .map_err(wrong)?;
        let element = named.element();
        let changed = overrides.granularity.is_some() || overrides.zero.is_some();
        let format = match overrides.scale {
            Some(None) if changed => {
                return Err(Error::Usage(format!(
                    "{}: no scale leaves no group and no zero to choose",
                    role.name()
                )));
            }
            Some(None) => MatrixFormat::new(element, None).map_err(wrong)?,
            None if !changed => named,
            scale => {
                let usual = match role {
                    Role::Weights | Role::Values => MatrixFormat::weight_default(element),
                    Role::Activations => MatrixFormat::activation_default(element),
                };
                let mut layout = named.scales().or(usual.scales()).unwrap_or(ScaleLayout {
                    granularity: Granularity::Row,
                    scale: ScaleType::F32,
                    zero: ZeroKind::None,
                });
                if let Some(granularity) = overrides.granularity {
                    layout.granularity = granularity;
                }
                if let Some(scale) = scale.flatten() {
                    layout.scale = scale;
                }
                if let Some(zero) = overrides.zero {
                    layout.zero = zero;
                }
                MatrixFormat::new(element, Some(layout)).map_err(wrong)?
            }
        };
        Ok(Self {
            name: name.to_owned(),
            role,
            format,
            default_groups: overrides.granularity.is_none()
                && name.parse::<ElementFormat>().is_ok(),
            calibration: overrides.calibration,
        })
    }

    /// The format for so many columns, with a note on stderr where it is not the usual one.
    pub(crate) fn for_columns(&self, columns: usize) -> MatrixFormat {
        let (format, note) = self.fitted(columns);
        if let Some(note) = note {
            output::note(&note);
        }
        format
    }

    /// The format for so many columns. Groups that nobody asked for give way to ones that divide
    /// them, which a note tells.
    pub(crate) fn fitted(&self, columns: usize) -> (MatrixFormat, Option<String>) {
        if !self.default_groups {
            return (self.format, None);
        }
        let format = self.format.with_dividing_groups(columns);
        if format == self.format {
            return (format, None);
        }
        let scales = match format.scales().map(|layout| layout.granularity) {
            Some(Granularity::Group(group)) => format!("one scale per {group} columns"),
            _ => "one scale a row".to_owned(),
        };
        let note = format!(
            "note: {columns} columns are no multiple of {}; the {} {} take {scales} ({format})",
            self.format.group_len(columns),
            self.name,
            self.role.name(),
        );
        (format, Some(note))
    }

    /// The error with the operand in front.
    pub(crate) fn failed(&self, source: anybit::formats::FormatError) -> Error {
        Error::Operand {
            what: self.role.name(),
            source,
        }
    }
}

/// The options for each of some operands.
pub(crate) fn quantize_options<const N: usize>(
    arguments: &RoundingArguments,
    operands: [(&FormatChoice, MatrixFormat); N],
) -> Result<[QuantizeOptions; N], Error> {
    let rounding = arguments.rounding.unwrap_or_default();
    let takes_rounding = |format: &MatrixFormat| {
        let element = format.element();
        element.affine().is_some() || element.minifloat().is_some()
    };
    let formats = operands.map(|(_, format)| format);
    if rounding != Rounding::NearestEven && !formats.iter().any(takes_rounding) {
        let format = formats.first().map(MatrixFormat::element);
        return Err(match format {
            Some(element) => anybit::formats::FormatError::Rounding { element }.into(),
            None => Error::Usage("there is nothing to round".to_owned()),
        });
    }
    let has_powers = |format: &MatrixFormat| {
        format
            .scales()
            .is_some_and(|layout| layout.scale == ScaleType::E8m0)
    };
    if arguments.scale_rule.is_some() && !formats.iter().any(has_powers) {
        return Err(Error::Usage(format!(
            "--scale-rule is for e8m0 scales, which {} has not; leave it out, or take --scale e8m0",
            formats.map(|format| format.to_string()).join(" x ")
        )));
    }
    Ok(operands.map(|(choice, format)| QuantizeOptions {
        calibration: choice.calibration,
        rounding: match rounding {
            _ if !takes_rounding(&format) => Rounding::NearestEven,
            // Weights and activations at the same index shall not share their random bits.
            Rounding::Stochastic { seed } if choice.role == Role::Activations => {
                Rounding::Stochastic {
                    seed: seed.wrapping_add(1),
                }
            }
            rounding => rounding,
        },
        scale_rule: arguments.scale_rule.map(Into::into).unwrap_or_default(),
    }))
}
