//! Kernels in a browser: the library prepares them on wgpu's noop backend, whose buffers hold words, the browser runs what it
//! prepared, and the words come back into the same buffers, to be compared as every other test compares them.
//!
//! So what runs there is what the library links, binds and dispatches, without the library in the browser.

pub mod gemm;
pub mod job;
pub mod rows;

use std::fmt;

use anybit::{Caps, Context, DeviceClass, Prepared, Specialization, wgpu};

use job::{Answer, AnswerStatus, Job, Texels};

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All outputs are what they must be, bit for bit.
    Exact,
    /// All outputs lie within their bounds.
    Bounded,
    /// The browser's compiler accepted the shader, which did not have to run.
    Accepted,
    /// An output is wrong, or the browser failed.
    Failed(String),
    /// The browser's compiler refused a shader.
    Refused(String),
}

impl Outcome {
    /// Its name in reports.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bounded => "bounded",
            Self::Accepted => "accepted",
            Self::Failed(_) => "failed",
            Self::Refused(_) => "refused",
        }
    }

    /// Why it is none to be content with.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Exact | Self::Bounded | Self::Accepted => None,
            Self::Failed(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}

impl<E: fmt::Display> From<E> for Outcome {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Hands work to a browser and waits for what it says.
pub trait Runner {
    /// Runs a piece of work.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    fn run(&mut self, job: &mut Job) -> Result<Answer, String>;
}

/// A kernel with its operands.
pub struct Case {
    /// The kernel's id, and what else tells the case from others.
    pub id: String,
    /// The row of the table that the kernel is of, or its stem where it is in none.
    pub kernel: String,
    /// What is computed.
    pub contract: String,
    #[expect(clippy::type_complexity, reason = "it is named nowhere else")]
    run: Box<dyn Fn(&mut dyn Runner) -> Result<Outcome, Outcome> + Send + Sync>,
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.id)
    }
}

impl Case {
    fn new(
        id: impl Into<String>,
        kernel: &str,
        contract: impl Into<String>,
        run: impl Fn(&mut dyn Runner) -> Result<Outcome, Outcome> + Send + Sync + 'static,
    ) -> Self {
        Self {
            id: id.into(),
            kernel: kernel.to_owned(),
            contract: contract.into(),
            run: Box::new(run),
        }
    }

    /// Runs it.
    pub fn run(&self, runner: &mut dyn Runner) -> Outcome {
        match (self.run)(runner) {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }
}

/// A device to plan for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// The smallest and the largest subgroup, of devices that have any.
    pub subgroup: Option<(u32, u32)>,
    /// Whether the browser's device is such a one. Shaders for others are judged and not run.
    pub runs: bool,
}

impl Device {
    /// WebGPU's floor.
    pub const FLOOR: Self = Self {
        subgroup: None,
        runs: true,
    };

    /// A device with subgroups of 32 lanes, as most GPUs have them.
    pub const GPU: Self = Self {
        subgroup: Some((32, 32)),
        runs: false,
    };

    /// What the planner knows of it.
    pub fn caps(self) -> Caps {
        Caps {
            subgroup: self.subgroup,
            ..Caps::floor()
        }
    }

    /// What it adds to an id.
    pub const fn name(self) -> &'static str {
        match (self.subgroup, self.runs) {
            (None, _) => "floor",
            (Some(_), true) => "subgroups",
            (Some(_), false) => "gpu",
        }
    }

    /// A context on the noop backend that prepares as it would on the device.
    ///
    /// # Panics
    ///
    /// Never: the noop backend makes every device.
    pub fn context(self) -> Context {
        let (smallest, largest) = self.subgroup.unwrap_or((4, 4));
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::NOOP,
            backend_options: wgpu::BackendOptions {
                noop: wgpu::NoopBackendOptions {
                    subgroup_min_size: Some(smallest),
                    subgroup_max_size: Some(largest),
                    ..wgpu::NoopBackendOptions::enabled()
                },
                ..Default::default()
            },
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let adapter = pollster::block_on(instance.request_adapter(&Default::default()));
        let adapter = adapter.expect("the noop backend is on");
        let device = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: match self.subgroup {
                None => wgpu::Features::empty(),
                Some(_) => wgpu::Features::SUBGROUP,
            },
            ..Default::default()
        }));
        let (device, queue) = device.expect("the noop backend has every feature");
        // As browsers' devices are: they do not tell what they are.
        Context::from_device_as(DeviceClass::Gpu, device, queue)
    }
}

/// Lets the browser run prepared work, and puts what it wrote where the noop backend would have written it.
///
/// # Errors
///
/// How it went, if it did not.
pub fn execute(
    runner: &mut dyn Runner,
    context: &Context,
    works: &[&Prepared],
    texels: &Texels,
) -> Result<(), Outcome> {
    run_job(runner, context, &mut Job::new(context, works, texels)?)
}

/// [`execute`] of work that is ready to be sent.
///
/// # Errors
///
/// How it went, if it did not.
pub fn run_job(runner: &mut dyn Runner, context: &Context, job: &mut Job) -> Result<(), Outcome> {
    let answer = runner.run(job)?;
    match answer.status {
        AnswerStatus::Ran => Ok(job.write_back(context, &answer)?),
        AnswerStatus::Refused => Err(Outcome::Refused(answer.reason)),
        AnswerStatus::Failed => Err(Outcome::Failed(answer.reason)),
    }
}

/// Lets the browser's compiler judge a shader, and no more.
///
/// # Errors
///
/// How it went, if it was not accepted.
pub fn judge(runner: &mut dyn Runner, specialization: &Specialization) -> Result<Outcome, Outcome> {
    let answer = runner.run(&mut Job::judge(specialization)?)?;
    match answer.status {
        AnswerStatus::Ran => Ok(Outcome::Accepted),
        AnswerStatus::Refused => Err(Outcome::Refused(answer.reason)),
        AnswerStatus::Failed => Err(Outcome::Failed(answer.reason)),
    }
}
