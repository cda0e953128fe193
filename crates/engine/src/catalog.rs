//! Which workflows this binary knows, checked once. The part that starting and claiming runs need, without functions.
//! Invariant: predecessors are earlier steps, so a catalogued workflow has no circle.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    error::StartError,
    prepare::Prepare,
    workflow::{StepSpec, Workflow},
};

/// A workflow that is not sound.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WorkflowError {
    /// Two workflows of one name.
    #[error("workflow `{workflow}` is given twice")]
    Twice {
        /// Its name.
        workflow: &'static str,
    },
    /// Nothing to do.
    #[error("workflow `{workflow}` has no steps")]
    Empty {
        /// Its name.
        workflow: &'static str,
    },
    /// Two steps of one name, present or former.
    #[error("workflow `{workflow}` has two steps named `{step}`")]
    DuplicateStep {
        /// The workflow.
        workflow: &'static str,
        /// The name.
        step: &'static str,
    },
    /// A predecessor that is not an earlier step.
    #[error("step `{step}` of workflow `{workflow}` comes after `{after}`, which is no earlier step")]
    UnknownPredecessor {
        /// The workflow.
        workflow: &'static str,
        /// The step.
        step: &'static str,
        /// What it names.
        after: &'static str,
    },
    /// A step that may never be tried.
    #[error("step `{step}` of workflow `{workflow}` needs at least one attempt")]
    NoAttempts {
        /// The workflow.
        workflow: &'static str,
        /// The step.
        step: &'static str,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    finishes: Vec<u32>,
    pub(crate) steps: Vec<StepSpec>,
}

impl Definition {
    /// Whether the code runs what this version planned.
    pub(crate) fn runs(&self, version: i32) -> bool {
        self.versions().any(|known| known == version)
    }

    fn versions(&self) -> impl Iterator<Item = i32> {
        std::iter::once(&self.version).chain(&self.finishes).map(|version| version.cast_signed())
    }
}

/// The workflows of this binary by name. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    known: Arc<BTreeMap<&'static str, Definition>>,
    pub(crate) prepare: Option<Prepare>,
}

impl Catalog {
    /// Checks the workflows and keeps what starting a run needs.
    ///
    /// # Errors
    /// The first workflow that is not sound.
    pub fn of<S>(workflows: &[Workflow<S>]) -> Result<Self, WorkflowError> {
        let mut known = BTreeMap::new();
        for workflow in workflows {
            let definition = Definition {
                name: workflow.name,
                version: workflow.version,
                finishes: workflow.finishes.clone(),
                steps: workflow.steps.iter().map(|step| step.spec.clone()).collect(),
            };
            check(&definition)?;
            if known.insert(workflow.name, definition).is_some() {
                return Err(WorkflowError::Twice { workflow: workflow.name });
            }
        }
        Ok(Self { known: Arc::new(known), prepare: None })
    }

    /// Runs that the engine starts of its own accord are made by `prepare`.
    #[must_use]
    pub fn prepared_by(self, prepare: Prepare) -> Self {
        Self { prepare: Some(prepare), ..self }
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.known.keys().copied()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Definition> {
        self.known.get(name)
    }

    /// Says which workflows there are.
    pub(crate) fn unknown(&self, name: &str) -> StartError {
        StartError::UnknownWorkflow { name: name.to_owned(), known: self.names().collect::<Vec<_>>().join(", ") }
    }

    /// Names and versions side by side, as the ledger's arrays want them.
    pub(crate) fn versions(&self) -> (Vec<String>, Vec<i32>) {
        self.known.values().flat_map(|known| known.versions().map(|version| (known.name.to_owned(), version))).unzip()
    }
}

fn check(definition: &Definition) -> Result<(), WorkflowError> {
    let workflow = definition.name;
    if definition.steps.is_empty() {
        return Err(WorkflowError::Empty { workflow });
    }
    let mut earlier: Vec<&str> = Vec::new();
    for spec in &definition.steps {
        let step = spec.name;
        if let Some(after) = spec.after.iter().find(|name| !earlier.contains(name)) {
            return Err(WorkflowError::UnknownPredecessor { workflow, step, after });
        }
        if spec.attempts == 0 {
            return Err(WorkflowError::NoAttempts { workflow, step });
        }
        earlier.push(step);
    }
    let mut names = BTreeSet::new();
    let all = definition.steps.iter().flat_map(|spec| std::iter::once(&spec.name).chain(&spec.former));
    match all.copied().find(|name| !names.insert(*name)) {
        Some(step) => Err(WorkflowError::DuplicateStep { workflow, step }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ctx, StepError};

    async fn noop(_: Ctx<()>, (): ()) -> Result<(), StepError> {
        Ok(())
    }

    fn fault(workflow: Workflow<()>) -> Option<WorkflowError> {
        Catalog::of(&[workflow]).err()
    }

    #[test]
    fn a_branching_workflow_is_sound() {
        let workflow = Workflow::named("w", 1)
            .step("a", noop)
            .step("b", noop)
            .step("c", noop)
            .after(&["a"])
            .step("d", noop)
            .after(&["b", "c"]);
        assert_eq!(fault(workflow), None);
    }

    #[test]
    fn two_steps_of_one_name_are_refused() {
        let workflow = Workflow::named("w", 1).step("a", noop).step("a", noop);
        assert_eq!(fault(workflow), Some(WorkflowError::DuplicateStep { workflow: "w", step: "a" }));
    }

    #[test]
    fn a_former_name_that_another_step_has_or_had_is_refused() {
        let refused = Some(WorkflowError::DuplicateStep { workflow: "w", step: "b" });
        assert_eq!(fault(Workflow::named("w", 1).step("a", noop).formerly("b").step("b", noop)), refused);
        assert_eq!(fault(Workflow::named("w", 1).step("a", noop).formerly("b").step("c", noop).formerly("b")), refused);
    }

    #[test]
    fn a_predecessor_must_be_an_earlier_step() {
        let workflow = Workflow::named("w", 1).step("a", noop).after(&["z"]);
        let expected = WorkflowError::UnknownPredecessor { workflow: "w", step: "a", after: "z" };
        assert_eq!(fault(workflow), Some(expected));
    }

    #[test]
    fn a_workflow_without_steps_is_refused() {
        assert_eq!(fault(Workflow::named("w", 1)), Some(WorkflowError::Empty { workflow: "w" }));
    }

    #[test]
    fn a_step_without_attempts_is_refused() {
        let workflow = Workflow::named("w", 1).step("a", noop).attempts(0);
        assert_eq!(fault(workflow), Some(WorkflowError::NoAttempts { workflow: "w", step: "a" }));
    }
}
