//! Serves the page on this machine alone, and hands it work.

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anybit_tests::web::Runner;
use anybit_tests::web::job::{Answer, Job};
use serde::Deserialize;
use serde_json::json;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::browser::Browser;

const PAGE: &str = include_str!("../../../web/index.html");
const SCRIPT: &str = include_str!("../../../web/check.js");

/// For a browser to start and to find its adapter.
const START: Duration = Duration::from_secs(60);

/// For a piece of work. Software adapters compile a large shader for half a minute, on a machine that does nothing else.
const WORK: Duration = Duration::from_secs(150);

/// How often the browser is looked after while nothing comes.
const GLANCE: Duration = Duration::from_millis(200);

/// Browsers that are started: one that hangs or crashes takes all its work with it.
const STARTS: usize = 5;

/// How often a piece of work is handed out that a browser has not survived.
const TRIES: usize = 2;

/// What the page says of its browser.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Hello {
    /// The user agent, with the version.
    pub(crate) browser: String,
    /// The adapter's name.
    #[serde(default)]
    pub(crate) adapter: String,
    /// The smallest and the largest subgroup, if the adapter has the feature.
    #[serde(default)]
    pub(crate) subgroups: Option<(u32, u32)>,
    /// Why there is no adapter.
    #[serde(default)]
    reason: Option<String>,
}

/// A piece of work on its way.
struct Order {
    number: u32,
    message: Vec<u8>,
    answer: mpsc::Sender<Result<Answer, String>>,
    tries: usize,
    /// When it is given up.
    deadline: Instant,
}

/// A browser that works for several threads, as long as this lives.
pub(crate) struct Workshop {
    orders: Option<mpsc::Sender<Order>>,
    number: AtomicU32,
    server: Arc<Server>,
    counter: Option<JoinHandle<()>>,
    /// Warnings of the compiler, each once.
    warnings: Mutex<Vec<String>>,
}

impl Workshop {
    /// Starts the server and a browser that runs `lanes` pieces of work at once, and waits for what it is.
    pub(crate) fn open(
        program: PathBuf,
        lanes: usize,
        limit: Duration,
    ) -> Result<(Self, Hello), String> {
        let server = Server::http("127.0.0.1:0").map_err(|error| format!("no server: {error}"))?;
        let address = server.server_addr().to_ip().ok_or("no address")?;
        let server = Arc::new(server);
        let (orders, receiver) = mpsc::channel();
        let (hello, greeting) = mpsc::channel();
        let mut counter = Counter {
            server: Arc::clone(&server),
            address: format!("http://{address}/"),
            program,
            lanes,
            browser: None,
            starts: 0,
            deadline: Instant::now() + limit,
            orders: receiver,
            waiting: VecDeque::new(),
            at_work: Vec::new(),
            parked: Vec::new(),
        };
        let counter = thread::spawn(move || counter.serve(&hello));
        let workshop = Self {
            orders: Some(orders),
            number: AtomicU32::new(0),
            server,
            counter: Some(counter),
            warnings: Mutex::default(),
        };
        let hello = greeting.recv().map_err(|_| "the server ended")??;
        Ok((workshop, hello))
    }

    /// Warnings of the compiler, each once.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.lock();
        warnings.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Runner for &Workshop {
    fn run(&mut self, job: &mut Job) -> Result<Answer, String> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        let order = Order {
            number,
            message: job.message(number),
            answer: sender,
            tries: 0,
            deadline: Instant::now(),
        };
        let ended = "the server has ended";
        let orders = self.orders.as_ref().ok_or(ended)?;
        orders.send(order).map_err(|_| ended)?;
        self.server.unblock();
        let answer = answer.recv().map_err(|_| ended)??;
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in &answer.warnings {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
        Ok(answer)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Without anybody to order, the server's thread ends, and the browser with it.
        self.orders = None;
        self.server.unblock();
        if let Some(counter) = self.counter.take() {
            // A panic there was printed where it happened.
            let _ = counter.join();
        }
    }
}

/// The thread that talks with the browser.
struct Counter {
    server: Arc<Server>,
    address: String,
    program: PathBuf,
    lanes: usize,
    browser: Option<Browser>,
    starts: usize,
    /// When everything must be done.
    deadline: Instant,
    orders: mpsc::Receiver<Order>,
    waiting: VecDeque<Order>,
    at_work: Vec<Order>,
    /// The page's questions for work that there was none for.
    parked: Vec<Request>,
}

impl Counter {
    fn serve(&mut self, hello: &mpsc::Sender<Result<Hello, String>>) {
        let started = self.start();
        // Nobody may be there to hear it any more.
        if hello.send(started).is_err() {
            return;
        }
        loop {
            match self.orders.try_recv() {
                Ok(order) => {
                    self.waiting.push_back(order);
                    continue;
                }
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
            let mut result = self.step();
            if let Err(reason) = &result {
                let reason = reason.clone();
                result = self.replace(&reason);
            }
            if let Err(reason) = result {
                return self.refuse(&reason);
            }
        }
    }

    /// Answers whatever is asked that there is no browser any more.
    fn refuse(&mut self, reason: &str) {
        self.browser = None;
        let left = self.at_work.drain(..).chain(self.waiting.drain(..));
        for order in left.chain(self.orders.iter()) {
            // Who asked may have given up.
            let _ = order.answer.send(Err(reason.to_owned()));
        }
    }

    /// Hands work out, and takes a request.
    ///
    /// # Errors
    ///
    /// Why the browser is good for nothing any more.
    fn step(&mut self) -> Result<(), String> {
        while !self.waiting.is_empty() && !self.parked.is_empty() {
            let (request, order) = (self.parked.pop(), self.waiting.pop_front());
            let (Some(request), Some(mut order)) = (request, order) else {
                break;
            };
            order.deadline = Instant::now() + WORK;
            respond(request, Response::from_data(order.message.clone()));
            self.at_work.push(order);
        }
        self.look_after()?;
        let Some((path, request, body)) = self.receive()? else {
            return Ok(());
        };
        match path.as_str() {
            "/next" => self.parked.push(request),
            "/answer" => {
                respond(request, Response::empty(204));
                let answer = Answer::parse(&body)?;
                let place = self
                    .at_work
                    .iter()
                    .position(|order| order.number == answer.number)
                    .ok_or("the browser answers what it was not asked")?;
                // Who asked may have given up.
                let _ = self.at_work.swap_remove(place).answer.send(Ok(answer));
            }
            _ => respond(request, Response::empty(404)),
        }
        Ok(())
    }

    /// Whether the browser lives, and is in time.
    fn look_after(&mut self) -> Result<(), String> {
        let now = Instant::now();
        if now > self.deadline {
            // Another browser would not help.
            self.starts = STARTS;
            return Err("the time for all cases is over".to_owned());
        }
        if self.at_work.iter().any(|order| now > order.deadline) {
            return Err(format!("no answer within {} s", WORK.as_secs()));
        }
        match self.browser.as_mut().and_then(Browser::ended) {
            Some(ended) => Err(ended),
            None => Ok(()),
        }
    }

    /// Starts another browser, for the work that is left.
    ///
    /// # Errors
    ///
    /// Why there is none.
    fn replace(&mut self, reason: &str) -> Result<(), String> {
        self.browser = None;
        self.parked.clear();
        for mut order in std::mem::take(&mut self.at_work) {
            order.tries += 1;
            if order.tries < TRIES {
                self.waiting.push_front(order);
            } else {
                let _ = order.answer.send(Err(format!("{reason}, {TRIES} times")));
            }
        }
        match self.start() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{reason}; {error}")),
        }
    }

    fn start(&mut self) -> Result<Hello, String> {
        if self.starts == STARTS {
            return Err("no other browser is started".to_owned());
        }
        self.starts += 1;
        self.browser = Some(Browser::start(&self.program, &self.address)?);
        let begun = Instant::now();
        while begun.elapsed() < START {
            if let Some(ended) = self.browser.as_mut().and_then(Browser::ended) {
                return Err(ended);
            }
            let Some((path, request, body)) = self.receive()? else {
                continue;
            };
            if path != "/hello" {
                respond(request, Response::empty(404));
                continue;
            }
            let lanes = json!({ "lanes": self.lanes }).to_string();
            respond(request, Response::from_string(lanes));
            let hello: Hello = serde_json::from_slice(&body)
                .map_err(|error| format!("the page does not say what it is: {error}"))?;
            return match hello.reason {
                Some(reason) => Err(format!("{}: {reason}", hello.browser)),
                None => Ok(hello),
            };
        }
        Err(format!("no page within {} s", START.as_secs()))
    }

    /// What the page posts: path, request and body. Its files are served in passing.
    fn receive(&self) -> Result<Option<(String, Request, Vec<u8>)>, String> {
        let received = self.server.recv_timeout(GLANCE);
        let Some(mut request) = received.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        match (request.method(), request.url()) {
            (Method::Get, "/") => respond(request, text(PAGE, "text/html")),
            (Method::Get, "/check.js") => respond(request, text(SCRIPT, "text/javascript")),
            (Method::Post, url) => {
                let path = url.to_owned();
                let mut body = Vec::new();
                // A page that was closed meanwhile has sent but a part.
                if request.as_reader().read_to_end(&mut body).is_ok() {
                    return Ok(Some((path, request, body)));
                }
            }
            _ => respond(request, Response::empty(404)),
        }
        Ok(None)
    }
}

fn text(content: &'static str, kind: &str) -> Response<&'static [u8]> {
    let headers = [("Content-Type", kind), ("Cache-Control", "no-store")]
        .into_iter()
        .filter_map(|(name, value)| Header::from_bytes(name, value).ok());
    let length = Some(content.len());
    Response::new(
        200.into(),
        headers.collect(),
        content.as_bytes(),
        length,
        None,
    )
}

/// Answers a request. A browser that is gone needs no answer.
fn respond<R: Read>(request: Request, response: Response<R>) {
    let _ = request.respond(response);
}
