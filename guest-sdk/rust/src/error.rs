//! Why a row, a configuration or a call was refused.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, in words, with its causes. Made by `?` from any [`std::error::Error`], or by
/// [`Error::new`], [`bail!`](crate::bail) and [`ensure!`](crate::ensure).
///
/// Like the error types of applications it does not implement [`std::error::Error`] itself.
pub struct Error(Box<str>);

/// A result whose error is an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that says `message`.
    pub fn new(message: impl fmt::Display) -> Error {
        Error(message.to_string().into())
    }
}

impl<E: StdError> From<E> for Error {
    #[cold]
    fn from(error: E) -> Error {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_message = cause.to_string();
            // Many error types already repeat their cause.
            if !message.contains(&cause_message) {
                message.push_str(": ");
                message.push_str(&cause_message);
            }
            source = cause.source();
        }
        Error(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Says what was being done when something failed, or was missing.
pub trait Context<T> {
    /// Puts `context` before the error: `"reading the fare: invalid digit"`.
    ///
    /// # Errors
    /// The error of `self`, or `context` alone where an option is `None`.
    fn context(self, context: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::new(format_args!("{context}: {}", error.into())))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, context: impl fmt::Display) -> Result<T> {
        self.ok_or_else(|| Error::new(context))
    }
}

/// Returns an [`Error`] with a formatted message.
#[macro_export]
macro_rules! bail {
    ($($message:tt)+) => {
        return ::core::result::Result::Err($crate::Error::new(::core::format_args!($($message)+)))
    };
}

/// Returns an [`Error`] with a formatted message unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            $crate::bail!($($message)+);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<i64> {
        let number = text.parse::<i64>().context("reading the fare")?;
        crate::ensure!(number >= 0, "{number} is negative");
        Ok(number)
    }

    #[test]
    fn an_error_tells_what_was_done_and_its_causes_once() {
        assert_eq!(
            parse("x").unwrap_err().to_string(),
            "reading the fare: invalid digit found in string"
        );
        assert_eq!(parse("-1").unwrap_err().to_string(), "-1 is negative");
        assert_eq!(None::<i64>.context("no fare").unwrap_err().to_string(), "no fare");

        #[derive(Debug)]
        struct Outer(std::num::ParseIntError);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("outer")
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::from(Outer("x".parse::<i64>().unwrap_err()));
        assert_eq!(error.to_string(), "outer: invalid digit found in string");
    }
}
