//! Which failures of the layers below are worth another attempt.

use engine::StepError;
use snapshot::assemble::AssembleError;
use snapshot::columns::ColumnError;
use snapshot::cut::CutError;
use snapshot::height::HeightError;
use snapshot::store::StoreError;

/// Says whether the same step may succeed later.
pub(crate) trait Classify: std::error::Error + Send + Sync + 'static {
    /// True where trying again can help.
    fn is_retryable(&self) -> bool;
}

/// Turns a failure into what the engine does next.
pub(crate) fn classify<E: Classify>(error: E) -> StepError {
    if error.is_retryable() { StepError::retry(error) } else { StepError::fail(error) }
}

impl Classify for StoreError {
    fn is_retryable(&self) -> bool {
        StoreError::is_retryable(self)
    }
}

impl Classify for CutError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Read { source, .. } => source.is_retryable(),
            Self::Store { source, .. } => source.is_retryable(),
            Self::Panicked { .. } => true,
            Self::Compress { .. } | Self::Encrypt { .. } => false,
        }
    }
}

impl Classify for sqlx::Error {
    /// A statement that the server refuses for its own sake will be refused again; a lost connection will not.
    fn is_retryable(&self) -> bool {
        let lasting = ["42", "22", "23", "28", "3D", "0A"];
        !self
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| lasting.iter().any(|class| code.starts_with(class)))
    }
}

impl Classify for HeightError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

impl Classify for ColumnError {
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

impl Classify for AssembleError {
    fn is_retryable(&self) -> bool {
        AssembleError::is_retryable(self)
    }
}
