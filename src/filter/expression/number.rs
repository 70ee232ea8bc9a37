//! Numbers to compute with.

use crate::value::{Json, Number};

/// A number: an integer as exactly as 128 bits allow, or a double.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// Written without a fraction.
    Integer(i128),
    /// Written with a fraction or an exponent, or too large for an integer.
    Double(f64),
}

impl Amount {
    /// The number that a value is; `None` for another kind.
    #[must_use]
    pub fn of(value: Json<'_>) -> Option<Self> {
        Some(match value.as_number()? {
            Number::Signed(number) => Self::Integer(number.into()),
            Number::Unsigned(number) => Self::Integer(number.into()),
            Number::Float(number) => Self::Double(number),
        })
    }

    /// To the nearest double.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Integer(number) => number as f64,
            Self::Double(number) => number,
        }
    }

    /// Its value when that is an integer of 64 bits, however it is written.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        match self {
            Self::Integer(number) => i64::try_from(number).ok(),
            // Saturates, and what saturates does not fit.
            Self::Double(number) if number.fract() == 0.0 => i64::try_from(number as i128).ok(),
            Self::Double(_) => None,
        }
    }

    /// A double in the place of an integer that 64 bits do not hold.
    #[must_use]
    pub fn narrowed(self) -> Self {
        match self {
            Self::Integer(number) if number < i64::MIN.into() || number > u64::MAX.into() => {
                Self::Double(number as f64)
            }
            Self::Integer(_) | Self::Double(_) => self,
        }
    }

    /// Its JSON text; `None` for infinity and what is no number.
    #[must_use]
    pub fn text(self) -> Option<Vec<u8>> {
        match self.narrowed() {
            Self::Integer(number) => Some(number.to_string().into_bytes()),
            Self::Double(number) => Some(serde_json::Number::from_f64(number)?.to_string().into_bytes()),
        }
    }
}
