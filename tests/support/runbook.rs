//! Runs the commands of a runbook as an operator would type them, so that the document cannot rot.
//!
//! Every fenced block marked `sh` under a heading is run, in order, by one `bash -euo pipefail`; blocks with another mark are not.
//! Programs are found as on an operator's machine: `snapshots` and PostgreSQL's by PATH, everything else by the environment.
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;

use tokio::process::Command;

use super::cli::{Ran, forget_environment, run};
use super::files::{pg_bin, snapshots_binary};

/// A runbook of `docs/operations`.
pub(crate) struct Runbook {
    path: PathBuf,
    sections: Vec<Section>,
    /// Headings whose commands were run.
    seen: Mutex<Vec<String>>,
}

struct Section {
    heading: String,
    script: String,
}

/// Reads `docs/operations/<name>.md`.
pub(crate) fn runbook(name: &str) -> Runbook {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = repository.join("docs/operations").join(format!("{name}.md"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Runbook { path, sections: sections(&text), seen: Mutex::default() }
}

/// Headings that have commands, each with its commands.
fn sections(text: &str) -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    let mut fence: Option<&str> = None;
    for line in text.lines() {
        match (fence, line.trim_start().strip_prefix("```")) {
            (None, Some(mark)) => fence = Some(mark.trim()),
            (Some(_), Some(_)) => fence = None,
            (Some("sh"), None) => {
                let section = all.last_mut().expect("commands stand under a heading");
                section.script.push_str(line);
                section.script.push('\n');
            }
            (None, None) if line.starts_with('#') => {
                let heading = line.trim_start_matches('#').trim().to_owned();
                all.push(Section { heading, script: String::new() });
            }
            _ => {}
        }
    }
    all.retain(|section| !section.script.is_empty());
    all
}

impl Runbook {
    /// Runs the commands under a heading, which must succeed, in `dir` and with these variables.
    pub(crate) async fn run(&self, heading: &str, dir: &Path, env: &[(&str, &str)]) -> Ran {
        let section = self.sections.iter().find(|section| section.heading == heading);
        let section = section.unwrap_or_else(|| panic!("{} has no commands under {heading:?}", self.path.display()));
        let mut command = Command::new("bash");
        forget_environment(&mut command);
        let programs = [snapshots_binary().parent().unwrap().to_owned(), pg_bin()];
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&inherited))).unwrap();
        command.args(["-euo", "pipefail", "-c", &section.script]).current_dir(dir).env("PATH", path).env("RUST_LOG", "warn");
        command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ran = run(&mut command).await;
        assert_eq!(ran.code, Some(0), "{heading}:\n{}\n{}{}", section.script, ran.stdout, ran.stderr);
        self.seen.lock().unwrap().push(heading.to_owned());
        ran
    }

    /// Every heading with commands was run.
    pub(crate) fn was_run(&self) {
        let seen = self.seen.lock().unwrap();
        let left: Vec<&String> = self.sections.iter().map(|section| &section.heading).filter(|h| !seen.contains(h)).collect();
        assert!(left.is_empty(), "{}: nothing ran the commands under {left:?}", self.path.display());
    }
}

#[test]
fn commands_are_those_of_shell_blocks_under_their_heading() {
    let text =
        "# A\n```sh\necho 1\n```\ntext\n## B\n```text\nno\n```\n## C\n```sh\n# no heading\necho 2\n```\n```sh\necho 3\n```\n";
    let found: Vec<_> = sections(text).into_iter().map(|section| (section.heading, section.script)).collect();
    let expected = [("A", "echo 1\n"), ("C", "# no heading\necho 2\necho 3\n")];
    assert_eq!(found, expected.map(|(heading, script)| (heading.to_owned(), script.to_owned())));
}
