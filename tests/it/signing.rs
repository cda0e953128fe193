//! What is published is signed so that stock `minisign` agrees; keys rotate; secrets stay in their files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use snapshot::key::Key;
use snapshot::manifest::{Manifest, Pointer};
use snapshot::sign::{KeyState, Keyring, KeyringError, Password};
use tokio::process::Command;

use crate::support::{ServiceProcess, Site, bare_command, pg_bin, run, site_with_chain};

fn object(site: &Site, key: &str) -> Vec<u8> {
    std::fs::read(site.objects().join(key)).unwrap()
}

/// Keys of everything of a snapshot that is signed.
fn signed(manifest: &Manifest) -> [Key; 3] {
    let path = manifest.path();
    [Key::Checksum(path.clone()), Key::Manifest(path.clone()), Key::Pointer(path)]
}

/// Stock `minisign -V` on copies of an object and its signature; `false` where it is not installed.
async fn minisign_agrees(site: &Site, key: &Key, public_key: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, object(site, &key.to_string())).unwrap();
    std::fs::write(dir.path().join("file.minisig"), object(site, &key.signature().to_string())).unwrap();
    let mut command = Command::new("minisign");
    let ran = command.args(["-V", "-P", public_key, "-m"]).arg(&file).stdin(Stdio::null()).output().await;
    let Ok(output) = ran else {
        println!("skipped: minisign is not installed");
        return false;
    };
    assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(&file, b"something else").unwrap();
    let output = command.output().await.unwrap();
    assert!(!output.status.success(), "minisign takes anything");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_signed_rotation_keeps_readers_who_pinned_both_keys_and_no_secret_leaves_its_file() {
    let site = site_with_chain(1_000).await;
    let service = site.serve().await;
    let first = service.cut().await;
    let keyring = site.keyring();
    let pinned = keyring.trusted().unwrap();
    let keys = keyring.published().unwrap();
    assert_eq!(keys.iter().map(|key| key.state).collect::<Vec<_>>(), [KeyState::Active, KeyState::Next]);
    for key in signed(&first) {
        let signature = object(&site, &key.signature().to_string());
        assert_eq!(pinned.verify(&key, &object(&site, &key.to_string()), &signature).unwrap(), keys[0].id);
        minisign_agrees(&site, &key, &keys[0].public_key).await;
    }
    let latest = object(&site, "mainnet/latest.json");
    let pointer: Pointer = serde_json::from_slice(&latest).unwrap();
    assert_eq!(latest, object(&site, &Key::Pointer(first.path()).to_string()), "`latest` is what was signed");
    assert_eq!(pointer.signature, Some(Key::Pointer(first.path()).signature().to_string()));
    assert!(pointer.expires_at > Some(pointer.created_at), "it has an end");
    let shown = service.json("/signing-keys").await;
    assert_eq!(shown["data"][0]["publicKey"], keys[0].public_key.as_str());
    assert_eq!(object(&site, &Key::PublicKey(keys[1].id.clone()).to_string()), keys[1].file().into_bytes());

    let secrets: Vec<String> = keys.iter().map(|key| secret_of(&keyring, &key.id)).collect();
    let rotated = run(site.command().args(["signing-key", "rotate", "--json"])).await;
    let second = service.cut().await;
    for key in signed(&second) {
        let signature = object(&site, &key.signature().to_string());
        assert_eq!(pinned.verify(&key, &object(&site, &key.to_string()), &signature).unwrap(), keys[1].id);
    }
    let shown = service.json("/signing-keys").await;
    assert_eq!((&shown["data"][0]["id"], &shown["data"][2]["state"]), (&keys[1].id.as_str().into(), &"retired".into()));
    assert!(!keyring.dir().join(format!("{}.key", keys[0].id)).exists(), "the old secret is still there");
    let dump = Command::new(pg_bin().join("pg_dump")).args(["--inserts", "-d", site.database.url()]).output().await.unwrap();
    let texts = [String::from_utf8(dump.stdout).unwrap(), rotated.stdout.clone(), rotated.stderr.clone(), shown.to_string()];
    assert!(texts[0].contains(&second.snapshot_id), "the dump lacks the catalog");
    assert_eq!(rotated.result()["keys"].as_array().unwrap().len(), 3);
    for secret in secrets {
        assert!(texts.iter().all(|text| !text.contains(&secret)), "a secret key left its file");
    }
}

/// The part of a secret key's line that is the secret.
fn secret_of(keyring: &Keyring, id: &str) -> String {
    let path = keyring.dir().join(format!("{id}.key"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().nth(1).unwrap()[80..160].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_bucket_of_its_own_signs_from_the_first_snapshot_and_serves_what_is_needed_to_check() {
    let site = site_with_chain(1_000).await.with_embedded_bucket();
    std::fs::remove_dir_all(site.keyring().dir()).unwrap();
    let service = site.serve().await;
    let manifest = service.cut().await;
    let trusted = site.keyring().trusted().unwrap();
    for key in signed(&manifest) {
        let bytes = service.get(&format!("/{key}")).await.bytes().await.unwrap();
        let signature = service.get(&format!("/{}", key.signature())).await.bytes().await.unwrap();
        trusted.verify(&key, &bytes, &signature).unwrap();
    }
    let keys = service.json("/signing-keys").await;
    let id = keys["data"][0]["id"].as_str().unwrap();
    let file = service.get(&format!("/signing-keys/{id}.pub")).await.text().await.unwrap();
    assert!(file.contains(keys["data"][0]["publicKey"].as_str().unwrap()), "{file}");
    assert_eq!(service.get("/signing-keys/keyring.json").await.status(), 404);
    assert_eq!(service.get(&format!("/signing-keys/{id}.key")).await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_have_a_password_and_a_readable_secret_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "correct horse\n").unwrap();
    let keys = dir.path().join("keys");
    let command = |args: &[&str]| {
        let mut command = bare_command(args);
        command.arg("--json").env("SNAPSHOTS_SIGNING_KEY_DIR", &keys).env("SNAPSHOTS_SIGNING_PASSWORD_FILE", &password);
        command
    };
    run(command(&["signing-key", "show"])).await.error_with(4, &["signing-key generate"]);
    let made = run(command(&["signing-key", "generate"])).await.result();
    run(command(&["signing-key", "generate"])).await.error_with(6, &["rotate"]);
    let with = |password: Option<&str>| Keyring::new(&keys, Password::new(password.map(str::to_owned)));
    let key = Key::LatestOfAll;
    let signature = with(Some("correct horse")).sign(&key, 1, b"text").unwrap();
    let id = made["keys"][0]["id"].as_str().unwrap();
    assert_eq!(with(None).trusted().unwrap().verify(&key, b"text", &signature).unwrap(), id);
    for wrong in [None, Some("wrong")] {
        assert!(matches!(with(wrong).sign(&key, 1, b"text"), Err(KeyringError::Locked { .. })));
        assert!(matches!(with(wrong).rotate(), Err(KeyringError::Locked { .. })));
    }
    readable(&keys.join(format!("{id}.key")));
    assert!(matches!(with(Some("correct horse")).sign(&key, 1, b"text"), Err(KeyringError::Open { .. })));
    assert_eq!(run(command(&["signing-key", "show"])).await.result(), made);
}

fn readable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
}

#[test]
fn a_secret_that_a_killed_rotation_left_goes_when_the_keys_are_used_next() {
    let dir = tempfile::tempdir().unwrap();
    let keyring = Keyring::new(dir.path(), Password::default());
    let old = keyring.generate().unwrap()[0].id.clone();
    let secret = dir.path().join(format!("{old}.key"));
    let kept = std::fs::read(&secret).unwrap();
    keyring.rotate().unwrap();
    let uses: [(&str, &dyn Fn()); 3] = [
        ("show", &|| drop(keyring.published().unwrap())),
        ("sign", &|| drop(keyring.sign(&Key::LatestOfAll, 1, b"text").unwrap())),
        ("rotate", &|| drop(keyring.rotate().unwrap())),
    ];
    for (name, used) in uses {
        // As where it was killed between the roles and the removal.
        std::fs::write(&secret, &kept).unwrap();
        used();
        assert!(!secret.exists(), "{name} left a retired secret");
    }
    let secrets = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "key"));
    assert_eq!(secrets.count(), 2, "the active one and the next");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_key_stands_in_the_log_of_a_service_or_among_its_arguments() {
    let site = site_with_chain(1_000).await;
    let keyring = site.keyring();
    let mut secrets: Vec<String> = keyring.published().unwrap().iter().map(|key| secret_of(&keyring, &key.id)).collect();
    secrets.push(site.bucket.config().secret_key.clone());
    let log = site.dir.path().join("log");
    let mut command = site.command();
    command.args(["serve", "--json", "--listen", "127.0.0.1:0"]).env("RUST_LOG", "trace");
    command.stdout(Stdio::piped()).stderr(std::fs::File::create(&log).unwrap());
    let service = ServiceProcess::start(command).await;
    service.cut().await;
    run(site.command().args(["signing-key", "rotate", "--json"])).await.result();
    let keys = keyring.published().unwrap();
    let live = keys.iter().filter(|key| key.state != KeyState::Retired);
    secrets.extend(live.map(|key| secret_of(&keyring, &key.id)));
    service.cut().await;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", service.child.id().unwrap())).unwrap();
    service.kill().await;
    let texts = [std::fs::read_to_string(&log).unwrap(), String::from_utf8(arguments).unwrap()];
    assert!(texts[0].contains("TRACE") && texts[1].contains("serve"), "nothing was looked at");
    for secret in secrets {
        assert!(secret.len() > 8 && texts.iter().all(|text| !text.contains(&secret)), "a secret key left its file");
    }
}
