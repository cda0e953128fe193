//! What every handler can reach.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use workflows::services::Services;

use crate::auth::Access;
use crate::routes::archives::Splices;

/// Who serves the bytes of public objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// This service: the bucket is embedded and nobody else can reach it.
    Service,
    /// The bucket's public address; we only redirect to it.
    Bucket,
}

/// Writes down what this process counts, in Prometheus' text format.
pub type Exposition = Arc<dyn Fn() -> String + Send + Sync>;

/// Shared by all handlers. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    /// Databases, bucket, settings.
    pub services: Services,
    /// Starts and shows runs.
    pub engine: engine::Client,
    /// Who serves objects.
    pub delivery: Delivery,
    /// Archives that are made as they are read.
    pub splices: Splices,
    /// Whether changing something needs a key.
    pub access: Access,
    /// What `/metrics` answers.
    pub exposition: Exposition,
    /// Set when the service stops: streams that would never end by themselves do then.
    pub stopping: CancellationToken,
}
