//! What a run does, as data: named steps, what they come after, and the functions behind them.
//! Nothing is executed here. Invariant: a step is addressed by its name, so steps may be inserted and reordered
//! between versions; a change that gives a name another meaning takes a new version number.
use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    backoff::Backoff,
    ctx::Ctx,
    error::{BoxError, StepError},
    model::{Queue, StepKind},
};

pub(crate) type Handler<S> = Arc<dyn Fn(Ctx<S>, Value) -> BoxFuture<'static, Result<Value, StepError>> + Send + Sync>;
pub(crate) type Expand = Arc<dyn Fn(Value) -> Result<Vec<Value>, StepError> + Send + Sync>;

/// A step without its function: all that starting a run needs to know.
#[derive(Debug, Clone)]
pub(crate) struct StepSpec {
    pub(crate) name: &'static str,
    /// Names it had in code whose runs may be unfinished.
    pub(crate) former: Vec<&'static str>,
    /// [`StepKind::Task`] or [`StepKind::Group`].
    pub(crate) kind: StepKind,
    pub(crate) queue: Queue,
    pub(crate) attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) timeout: Option<Duration>,
    pub(crate) after: Vec<&'static str>,
}

pub(crate) struct StepDef<S> {
    pub(crate) spec: StepSpec,
    pub(crate) handler: Handler<S>,
    /// Of a group: from its input to its children's.
    pub(crate) expand: Option<Expand>,
}

/// A named, versioned list of steps. `S` is what its steps need: pools, stores, clocks.
pub struct Workflow<S> {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    /// Earlier versions whose runs this code finishes.
    pub(crate) finishes: Vec<u32>,
    pub(crate) steps: Vec<StepDef<S>>,
    services: PhantomData<fn() -> S>,
}

impl<S: Send + Sync + 'static> Workflow<S> {
    /// An empty workflow. Runs in flight keep the version that planned them; a binary that does not know it never
    /// touches them.
    #[must_use]
    pub fn named(name: &'static str, version: u32) -> Self {
        Self { name, version, finishes: Vec::new(), steps: Vec::new(), services: PhantomData }
    }

    /// Says that runs which these earlier versions planned are finished by this code: each of their steps is here, under the
    /// name it had or with [`Workflow::formerly`], and reads what their steps left behind.
    #[must_use]
    pub fn finishes(self, versions: &[u32]) -> Self {
        Self { finishes: versions.to_vec(), ..self }
    }

    /// Adds a step after the one added last. Its input is that step's output: for a fan-out the children's outputs by
    /// index, for the first step the run's parameters.
    #[must_use]
    pub fn step<I, O, F, Fut>(self, name: &'static str, run: F) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        F: Fn(Ctx<S>, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        self.push(name, StepKind::Task, erase(name, run), None)
    }

    /// Adds a fan-out: `items` splits the previous step's output, and `run` is called once per item, each a child step
    /// of its own with its own attempts. `items` must give the same items for the same output, since it may be asked
    /// again after a crash. The next step is the join.
    #[must_use]
    pub fn each<P, I, O, X, F, Fut>(self, name: &'static str, items: X, run: F) -> Self
    where
        P: DeserializeOwned,
        I: Serialize + DeserializeOwned + Send + 'static,
        O: Serialize + Send + 'static,
        X: Fn(&P) -> Vec<I> + Send + Sync + 'static,
        F: Fn(Ctx<S>, I) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        let expand = move |input: Value| {
            let previous: P = decode(name, input)?;
            items(&previous).iter().map(|item| encode(name, item)).collect()
        };
        self.push(name, StepKind::Group, erase(name, run), Some(Arc::new(expand)))
    }

    /// Sets the queue of the step added last (for a fan-out: of its children). Default: [`Queue::Io`].
    #[must_use]
    pub fn queue(self, queue: Queue) -> Self {
        self.change(|spec| spec.queue = queue)
    }

    /// Sets how often the step added last (each child of a fan-out) is tried. Default: 5. A crash costs an attempt.
    #[must_use]
    pub fn attempts(self, attempts: u32) -> Self {
        self.change(|spec| spec.attempts = attempts)
    }

    /// Sets the waits between attempts of the step added last.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.change(|spec| spec.backoff = backoff)
    }

    /// Bounds one attempt of the step added last; a step over it is stopped and tried again. Default: none.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.change(|spec| spec.timeout = Some(timeout))
    }

    /// Says what the step added last comes after, instead of the step added before it. With several predecessors its
    /// input is an object from their names to their outputs, with none it is the run's parameters.
    #[must_use]
    pub fn after(self, names: &[&'static str]) -> Self {
        self.change(|spec| spec.after = names.to_vec())
    }

    /// Says that the step added last had this name before: runs that were planned under it find the step. May be said of
    /// several names; it can go once no such run is unfinished or worth a retry.
    #[must_use]
    pub fn formerly(self, name: &'static str) -> Self {
        self.change(|spec| spec.former.push(name))
    }

    /// The name that code knows for a step of the ledger.
    pub(crate) fn present_name<'a>(&self, stored: &'a str) -> &'a str {
        let mut specs = self.steps.iter().map(|step| &step.spec);
        specs.find(|spec| spec.former.contains(&stored)).map_or(stored, |spec| spec.name)
    }

    /// The names under which the ledger may have a step.
    pub(crate) fn stored_names<'a>(&'a self, present: &'a str) -> Vec<&'a str> {
        let former = self.steps.iter().filter(|step| step.spec.name == present).flat_map(|step| &step.spec.former);
        std::iter::once(present).chain(former.copied()).collect()
    }

    /// Names of the steps, in the order they were added.
    #[must_use]
    pub fn step_names(&self) -> Vec<&'static str> {
        self.steps.iter().map(|step| step.spec.name).collect()
    }

    fn push(mut self, name: &'static str, kind: StepKind, handler: Handler<S>, expand: Option<Expand>) -> Self {
        let after = self.steps.last().map(|step| step.spec.name).into_iter().collect();
        let spec = StepSpec {
            name,
            former: Vec::new(),
            kind,
            queue: Queue::Io,
            attempts: 5,
            backoff: Backoff::default(),
            timeout: None,
            after,
        };
        self.steps.push(StepDef { spec, handler, expand });
        self
    }

    fn change(mut self, change: impl FnOnce(&mut StepSpec)) -> Self {
        if let Some(step) = self.steps.last_mut() {
            change(&mut step.spec);
        }
        self
    }
}

fn erase<S, I, O, F, Fut>(name: &'static str, run: F) -> Handler<S>
where
    S: Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    F: Fn(Ctx<S>, I) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<O, StepError>> + Send + 'static,
{
    Arc::new(move |ctx, input| match decode::<I>(name, input) {
        Ok(input) => {
            let work = run(ctx, input);
            async move { encode(name, &work.await?) }.boxed()
        }
        Err(error) => futures::future::ready(Err(error)).boxed(),
    })
}

/// A value of the ledger that is not what the code expects, or the reverse.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} of step `{step}`")]
struct Shape {
    verb: &'static str,
    step: &'static str,
    #[source]
    source: serde_json::Error,
}

fn decode<T: DeserializeOwned>(step: &'static str, value: Value) -> Result<T, StepError> {
    serde_json::from_value(value)
        .map_err(|source| StepError::Fail(BoxError::from(Shape { verb: "decode the input", step, source })))
}

fn encode<T: Serialize>(step: &'static str, value: &T) -> Result<Value, StepError> {
    serde_json::to_value(value)
        .map_err(|source| StepError::Fail(BoxError::from(Shape { verb: "encode the output", step, source })))
}
