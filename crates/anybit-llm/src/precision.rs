//! In which formats a model computes.

use anybit::KvFormat;
use anybit::formats::{
    ElementFormat, FormatError, Granularity, MatrixFormat, ScaleLayout, ScaleType, ZeroKind,
};

use crate::error::{Error, Result};

/// The formats of weights, activations and KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Precision {
    /// The format of the layers' matrices; as stored, if there is none.
    pub weight: Option<MatrixFormat>,
    /// The format of the embedding and the LM head; as stored, if there is none.
    pub head: Option<MatrixFormat>,
    /// f32, or what each token's activations are quantised to on the device.
    pub activation: MatrixFormat,
    /// The KV cache.
    pub kv: KvFormat,
}

impl Default for Precision {
    /// Weights as stored; activations int8 with a scale for each 32 channels of a token; keys and values f16.
    fn default() -> Self {
        Self {
            weight: None,
            head: None,
            activation: activation_of(ElementFormat::INT8),
            kv: KvFormat::F16,
        }
    }
}

/// Activations of an element: codes take one f32 scale for each 32 channels of a token.
///
/// One scale a token (`i8rf`) is what most papers quantise to, but the few large channels of a residual stream then set the step
/// of all others: on SmolLM2-135M it costs 2 % of perplexity, where groups cost 0.1 %, at the same speed.
fn activation_of(element: ElementFormat) -> MatrixFormat {
    if !element.has_codes() {
        return MatrixFormat::activation_default(element);
    }
    let scales = ScaleLayout {
        granularity: Granularity::Group(32),
        scale: ScaleType::F32,
        zero: ZeroKind::None,
    };
    MatrixFormat::new(element, Some(scales))
        .unwrap_or_else(|_| MatrixFormat::activation_default(element))
}

impl Precision {
    /// The format of activations of a name: `f32`; an element format (`int8`, `e4m3`), which takes a scale for each 32 channels of
    /// a token; a named format (`mxfp8e4m3`) or a matrix format (`i8rf`: a scale a token) as it is.
    ///
    /// # Errors
    ///
    /// [`FormatError`] for names that are none.
    pub fn parse_activation(name: &str) -> Result<MatrixFormat, FormatError> {
        match name.parse::<ElementFormat>() {
            Ok(element) => Ok(activation_of(element)),
            Err(_) => MatrixFormat::parse_activation(name),
        }
    }

    /// Weights as stored; activations, keys and values f32.
    pub fn exact() -> Self {
        Self {
            activation: MatrixFormat::F32,
            kv: KvFormat::F32,
            ..Self::default()
        }
    }

    /// The same with the weights of all layers in a format. Floats are taken by the embedding and the LM head too; these stay as
    /// they are stored for codes, which would cost them most.
    #[must_use]
    pub fn with_weight(mut self, format: MatrixFormat) -> Self {
        self.weight = Some(format);
        self.head = Some(format).filter(|format| !format.element().has_codes());
        self
    }

    /// The same with the embedding and the LM head in a format.
    #[must_use]
    pub fn with_head(mut self, format: MatrixFormat) -> Self {
        self.head = Some(format);
        self
    }

    /// The same with activations in a format.
    #[must_use]
    pub fn with_activation(mut self, format: MatrixFormat) -> Self {
        self.activation = format;
        self
    }

    /// The same with the KV cache in a format.
    #[must_use]
    pub fn with_kv(mut self, format: KvFormat) -> Self {
        self.kv = format;
        self
    }

    /// Whether activations are quantised.
    pub(crate) fn quantizes(&self) -> bool {
        self.activation != MatrixFormat::F32
    }

    /// Refuses activations that the device cannot be asked to make.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.quantizes() {
            return Ok(());
        }
        let refuse = |reason: &str| {
            Err(Error::ActivationFormat {
                format: self.activation.to_string(),
                reason: reason.into(),
            })
        };
        if !self.activation.element().has_codes() {
            return refuse("take f32, or a format with codes");
        }
        let Some(scales) = self.activation.scales() else {
            return refuse("they need a scale for each token or group");
        };
        if scales.zero != ZeroKind::None {
            return refuse("they are quantised on the device, without zero points or minima");
        }
        if !matches!(scales.scale, ScaleType::F32 | ScaleType::E8m0) {
            return refuse("they are quantised on the device, with scales of f32 or E8M0");
        }
        Ok(())
    }
}
