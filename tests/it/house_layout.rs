//! The crates use each other only along the arrows of `docs/architecture.md`.
//!
//! Cargo refuses circles, not arrows that merely point the wrong way: this does. It reads manifests, so an arrow is
//! refused from the moment it is declared, used or not, for tests and build scripts as well.
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// Every crate of the house, left to right: a crate may use those of later lines, never one of its own line.
const LINES: [&[&str]; 6] =
    [&["it"], &["workers"], &["api", "dashboards"], &["workflows"], &["engine", "views", "streams", "snapshot"], &["chain"]];

/// Crates that may use no other one of the house, whatever stands to their right: the engine knows no domain.
const ALONE: [&str; 1] = ["engine"];

/// The crate that may name apalis, so that it can be replaced in one place.
const DOORBELL: &str = "engine";

fn line_of(name: &str) -> Option<usize> {
    LINES.iter().position(|line| line.contains(&name))
}

fn may_use(user: &str, used: &str) -> bool {
    !ALONE.contains(&user) && matches!((line_of(user), line_of(used)), (Some(from), Some(to)) if from < to)
}

/// A manifest of the workspace and the packages it names.
struct Member {
    name: String,
    manifest: Table,
    uses: Vec<Use>,
}

/// A dependency of a crate.
#[derive(Debug, PartialEq, Eq)]
struct Use {
    /// Its real name, a rename undone.
    package: String,
    /// Whether it lies in this repository.
    ours: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn manifest(folder: &Path) -> Table {
    let path = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn members() -> Vec<Member> {
    let workspace = manifest(&root());
    let shared = workspace["workspace"]["dependencies"].as_table().unwrap();
    let folders = workspace["workspace"]["members"].as_array().unwrap();
    folders.iter().map(|folder| member(&root().join(folder.as_str().unwrap()), shared)).collect()
}

fn member(folder: &Path, shared: &Table) -> Member {
    let manifest = manifest(folder);
    let uses = dependencies(&manifest).into_iter().map(|(key, how)| used(key, &how, shared)).collect();
    Member { name: manifest["package"]["name"].as_str().unwrap().to_owned(), manifest, uses }
}

/// Entries of every dependency table, those for one platform included.
fn dependencies(manifest: &Table) -> Vec<(String, Value)> {
    let platforms = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(|targets| targets.values());
    let places = std::iter::once(manifest).chain(platforms.filter_map(Value::as_table));
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = places.flat_map(|place| kinds.iter().filter_map(|kind| place.get(*kind).and_then(Value::as_table)));
    tables.flatten().map(|(key, how)| (key.clone(), how.clone())).collect()
}

fn used(key: String, how: &Value, shared: &Table) -> Use {
    let how = how.get("workspace").and_then(|_| shared.get(&key)).unwrap_or(how);
    let package = how.get("package").and_then(Value::as_str).map_or(key, str::to_owned);
    Use { package, ours: how.get("path").is_some() }
}

#[test]
fn a_crate_uses_only_crates_to_its_right() {
    let members = members();
    let mut arrows = 0;
    for Member { name, uses, .. } in &members {
        for Use { package, .. } in uses.iter().filter(|used| used.ours) {
            assert!(may_use(name, package), "{name} must not use {package}: the design has no such arrow");
            arrows += 1;
        }
    }
    assert!(arrows >= members.len() - 1, "only {arrows} arrows were found: are dependencies declared in a new way?");
}

#[test]
fn every_crate_has_a_place_in_the_design() {
    for Member { name, .. } in members() {
        assert!(line_of(&name).is_some(), "crate {name} is in no line of the design: give it a place here and in the docs");
    }
}

#[test]
fn only_the_engine_names_apalis() {
    for Member { name, uses, .. } in members() {
        let named = uses.iter().any(|used| used.package.starts_with("apalis"));
        assert_eq!(named, name == DOORBELL, "{name} names {uses:?}");
    }
}

#[test]
fn every_crate_obeys_the_lints_of_the_workspace() {
    for Member { name, manifest, .. } in members() {
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
        assert_eq!(inherits, Some(true), "crate {name} has no `lints.workspace = true`");
    }
}

#[test]
fn arrows_backwards_sideways_and_from_the_engine_are_refused() {
    for (user, used) in [("it", "chain"), ("workers", "api"), ("api", "engine"), ("workflows", "engine"), ("views", "chain")] {
        assert!(may_use(user, used), "{user} → {used}");
    }
    for (user, used) in [("chain", "snapshot"), ("workflows", "api"), ("api", "dashboards"), ("engine", "chain")] {
        assert!(!may_use(user, used), "{user} → {used}");
    }
    for (user, used) in [("snapshot", "engine"), ("engine", "snapshot"), ("views", "streams"), ("api", "nobody")] {
        assert!(!may_use(user, used), "{user} → {used}");
    }
}

#[test]
fn renamed_shared_and_platform_dependencies_are_seen_as_what_they_are() {
    let shared: Table = "bell = { package = \"apalis\", version = \"1\" }\nchain = { path = \"crates/chain\" }".parse().unwrap();
    let manifest: Table = "[dependencies]\nbell.workspace = true\nchain.workspace = true\n\
                           [build-dependencies]\nmine = { package = \"engine\", path = \"../engine\" }\n\
                           [target.'cfg(unix)'.dev-dependencies]\nnix = \"0.31\""
        .parse()
        .unwrap();
    let found: Vec<Use> = dependencies(&manifest).into_iter().map(|(key, how)| used(key, &how, &shared)).collect();
    let expected = [("apalis", false), ("chain", true), ("engine", true), ("nix", false)];
    assert_eq!(found, expected.map(|(package, ours)| Use { package: package.into(), ours }));
}

#[test]
fn no_two_migrations_of_a_database_bear_one_number() {
    let migrations = root().join("migrations");
    for of in ["control", "chain"] {
        let files = std::fs::read_dir(migrations.join(of)).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut numbers: Vec<String> = files.map(|name| name.split('_').next().unwrap().to_owned()).collect();
        numbers.sort();
        assert!(!numbers.is_empty() && numbers.windows(2).all(|two| two[0] != two[1]), "{of}: {numbers:?}");
    }
}
