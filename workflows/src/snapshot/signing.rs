//! Signatures beside what a snapshot publishes.
//!
//! Signatures hold random bytes, so a second attempt makes another one: a signature that is there already stays if one of our
//! keys made it for the same bytes.

use bytes::Bytes;
use engine::StepError;
use snapshot::key::Key;
use snapshot::sign::{KeyState, Keyring, KeyringError};
use snapshot::store::Put;

use crate::services::Services;
use crate::step_error::classify;

/// Publishes the live public keys under their ids, for those who look for them where the snapshots are.
pub(super) async fn publish_keys(services: &Services) -> Result<(), StepError> {
    let Some(keyring) = &services.signing else { return Ok(()) };
    for key in keyring.published().map_err(unusable)?.into_iter().filter(|key| key.state != KeyState::Retired) {
        services.store.put_new(&Key::PublicKey(key.id.clone()), Bytes::from(key.file())).await.map_err(classify)?;
    }
    Ok(())
}

/// Writes the signature of `body` as the object `key`, where the service has a key to sign with.
pub(super) async fn put_signature(services: &Services, key: &Key, sequence: u64, body: &Bytes) -> Result<(), StepError> {
    let Some(keyring) = services.signing.clone() else { return Ok(()) };
    let name = key.signature();
    if is_there(services, &keyring, key, body).await? {
        return Ok(());
    }
    let (signed, bytes) = (key.clone(), body.clone());
    let made = tokio::task::spawn_blocking(move || keyring.sign(&signed, sequence, &bytes)).await;
    let signature = made.map_err(StepError::retry)?.map_err(unusable)?;
    match services.store.put_new(&name, Bytes::from(signature)).await.map_err(classify)? {
        Put::Created => Ok(()),
        Put::Existed => Err(StepError::retry(std::io::Error::other(format!("{name} was written by another at the same moment")))),
    }
}

async fn is_there(services: &Services, keyring: &Keyring, key: &Key, body: &Bytes) -> Result<bool, StepError> {
    let name = key.signature();
    let Some((signature, _)) = services.store.get(&name).await.map_err(classify)? else { return Ok(false) };
    let trusted = keyring.trusted().map_err(unusable)?;
    match trusted.verify(key, body, &signature) {
        Ok(_) => Ok(true),
        Err(error) => {
            let other =
                format!("{name} exists already and is not ours ({error}); does another service publish into this bucket?");
            Err(StepError::fail(std::io::Error::other(other)))
        }
    }
}

/// Somebody can put the key back while the step is retried.
fn unusable(error: KeyringError) -> StepError {
    StepError::retry(error)
}
