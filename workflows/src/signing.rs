//! Signatures beside what a snapshot publishes.
//!
//! Signatures hold random bytes, so a second attempt makes another one: a signature that is there already stays if one of our
//! keys made it for the same bytes.

use bytes::Bytes;
use engine::StepError;
use snapshot::key::Key;
use snapshot::sign::{KeyState, Keyring, KeyringError};
use snapshot::store::{Put, Store, StoreError};

use crate::services::Services;
use crate::step_error::classify;

/// Publishes the live public keys under their ids, for those who look for them where the snapshots are.
pub(crate) async fn publish_keys(services: &Services, store: &Store) -> Result<(), StepError> {
    let Some(keyring) = &services.signing else { return Ok(()) };
    for key in keyring.published().map_err(unusable)?.into_iter().filter(|key| key.state != KeyState::Retired) {
        store.put_new(&Key::PublicKey(key.id.clone()), Bytes::from(key.file())).await.map_err(classify)?;
    }
    Ok(())
}

/// Writes an object and, before it, its signature: whoever sees the object finds the signature. An object that is there already must be
/// the same, byte for byte.
pub(crate) async fn put_signed(
    services: &Services,
    store: &Store,
    (key, sequence): (Key, u64),
    body: Bytes,
) -> Result<(), StepError> {
    put_signature(services, store, (&key, sequence), &body).await?;
    if store.put_new(&key, body.clone()).await.map_err(classify)? == Put::Created {
        return Ok(());
    }
    match store.get(&key).await.map_err(classify)? {
        Some((there, _)) if there == body => Ok(()),
        _ => Err(StepError::fail(std::io::Error::other(format!(
            "{key} exists already with other content; does another service publish into this bucket?"
        )))),
    }
}

/// Writes the signature of `body` as the object `key`, where the service has a key to sign with.
async fn put_signature(services: &Services, store: &Store, (key, sequence): (&Key, u64), body: &Bytes) -> Result<(), StepError> {
    let Some(keyring) = services.signing.clone() else { return Ok(()) };
    let name = key.signature();
    if is_there(store, &keyring, key, body).await? {
        return Ok(());
    }
    let signature = sign(keyring, key, sequence, body.clone()).await?;
    match store.put_new(&name, signature).await.map_err(classify)? {
        Put::Created => Ok(()),
        Put::Existed => Err(StepError::retry(std::io::Error::other(format!("{name} was written by another at the same moment")))),
    }
}

/// Replaces an object that says how things stand, and its signature. Whoever reads between the two finds them at odds, and reads again.
pub(crate) async fn replace_signed(services: &Services, key: &Key, sequence: u64, body: Bytes) -> Result<(), StepError> {
    replace(services, key, body.clone()).await?;
    let Some(keyring) = services.signing.clone() else { return Ok(()) };
    let trusted = keyring.trusted().map_err(unusable)?;
    let there = services.store.get(&key.signature()).await.map_err(classify)?;
    if there.is_some_and(|(signature, _)| trusted.verify(key, &body, &signature).is_ok()) {
        return Ok(());
    }
    let signature = sign(keyring, key, sequence, body).await?;
    replace(services, &key.signature(), signature).await
}

/// The last who writes wins: each writes what it has just found.
async fn replace(services: &Services, key: &Key, body: Bytes) -> Result<(), StepError> {
    loop {
        let there = services.store.get(key).await.map_err(classify)?;
        if there.as_ref().is_some_and(|(there, _)| *there == body) {
            return Ok(());
        }
        match services.store.put_if_match(key, body.clone(), there.as_ref().map(|(_, etag)| etag.as_str())).await {
            Ok(_) => return Ok(()),
            // Missing: S3 answers so to a condition on an object that was deleted meanwhile.
            Err(StoreError::Precondition { .. } | StoreError::Missing { .. }) => {}
            Err(error) => return Err(classify(error)),
        }
    }
}

/// A password makes this slow, so it is kept off the async threads.
async fn sign(keyring: Keyring, key: &Key, sequence: u64, body: Bytes) -> Result<Bytes, StepError> {
    let key = key.clone();
    let made = tokio::task::spawn_blocking(move || keyring.sign(&key, sequence, &body)).await;
    Ok(Bytes::from(made.map_err(StepError::retry)?.map_err(unusable)?))
}

async fn is_there(store: &Store, keyring: &Keyring, key: &Key, body: &Bytes) -> Result<bool, StepError> {
    let name = key.signature();
    let Some((signature, _)) = store.get(&name).await.map_err(classify)? else { return Ok(false) };
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
