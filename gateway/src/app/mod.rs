//! An express-style app: add pages with `get` and sockets with `ws`, then call `run`, or `listen` to handle errors
//! yourself.
//!
//! A handler runs on the worker that owns its socket, and need not be `Send`. A panic in a handler closes only its own
//! socket, with 1011.

pub(crate) mod guard;
pub(crate) mod handler;
pub(crate) mod inbox;
pub(crate) mod message;
pub(crate) mod rooms;
pub(crate) mod since;
pub(crate) mod socket;

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use axum::handler::Handler;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing;

pub use self::guard::UpgradeRequest;
use self::guard::{Attached, Guard};
pub use self::handler::Outcome;
use self::handler::SocketHandler;
use self::rooms::Running;
use self::socket::Socket;
use crate::field;
use crate::http::script::SCRIPTS;
use crate::protocol::Format;

/// The gateway's paths for Server-Sent Events: channels in the query, or one in the path.
const STREAMS: [&str; 2] = ["/sse", "/sse/{channel}"];

/// The names and values of a path's parameters, still percent-encoded.
pub(crate) type Parameters = Vec<(String, String)>;

/// What serves the WebSockets of a path.
#[derive(Clone)]
pub(crate) enum Endpoint {
    /// One of the gateway's protocols.
    Gateway(Format),
    /// An app's handler. All its sockets share a channel.
    Handler(AppRoute),
}

/// A route of sockets whose messages an app handles.
#[derive(Clone)]
pub(crate) struct AppRoute {
    /// The channel that all its sockets share.
    pub(crate) channel: String,
    pub(crate) handler: SocketHandler,
    protocols: &'static [&'static str],
    pub(crate) guard: Option<Guard>,
    /// Whether its clients may ask for positions.
    pub(crate) resumable: bool,
}

impl Endpoint {
    /// The subprotocols that it supports.
    pub(crate) fn protocols(&self) -> &'static [&'static str] {
        match self {
            Self::Gateway(format) => format.protocol().names(),
            Self::Handler(route) => route.protocols,
        }
    }
}

/// The routes of pages and sockets that a node serves.
#[derive(Default, Clone)]
pub struct App {
    pub(crate) pages: axum::Router,
    paths: matchit::Router<()>,
    /// The index in `endpoints`, by path.
    sockets: matchit::Router<usize>,
    endpoints: Vec<Endpoint>,
    /// Whether it is the gateway itself.
    pub(crate) is_gateway: bool,
    /// The paths of Server-Sent Events.
    streams: matchit::Router<()>,
    /// The scheme and path of each route, in the order in which they were added.
    pub(crate) routes: Vec<(&'static str, String)>,
    /// What answers requests that no route of the app takes.
    pub(crate) router: Option<axum::Router>,
    /// What to do when the node stops, after its clients have left.
    pub(crate) shutdown: Vec<Shutdown>,
    /// The node that runs it.
    pub(crate) running: Running,
    /// The program's name and version, if set.
    pub(crate) program: Option<(&'static str, &'static str)>,
}

/// What an app does when its node stops.
pub(crate) type Shutdown = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A newly added route of sockets, for setting its options.
#[derive(Debug)]
pub struct SocketRoute<'a>(&'a mut Endpoint);

impl SocketRoute<'_> {
    /// Sets the subprotocols that the handler supports. The first one that the client offers and that is among them is
    /// selected, and [`Socket::protocol`] returns it. By default there are none: browsers then close a connection whose
    /// page offered some.
    ///
    /// # Panics
    /// If a name is not a token (RFC 9110 §5.6.2), which is a mistake in the program.
    pub fn protocols(self, names: &'static [&'static str]) -> Self {
        for name in names {
            assert!(field::is_token(name.as_bytes()), "{name:?} cannot be a subprotocol: it is not a token");
        }
        if let Endpoint::Handler(route) = self.0 {
            route.protocols = names;
        }
        self
    }

    /// Lets clients resume. A client that adds `since` to the query receives each message as JSON with its room and its position,
    /// `{"room":"blue","data":"…","at":"…"}`, and `{"lost":…}` where messages are lost. After a cut it connects with the last position
    /// of the route and of each room, `?since=…&since.blue=…`, and receives exactly what it missed: of a room once the handler has
    /// joined it. Other clients receive the messages alone.
    pub fn resumable(self) -> Self {
        if let Endpoint::Handler(route) = self.0 {
            route.resumable = true;
        }
        self
    }

    /// Asks `guard` before a request becomes a socket. Its `Ok` is kept with the socket: [`Socket::attached`] returns it. Its
    /// error, such as a status code or a redirect, is the answer to the client.
    ///
    /// ```
    /// use fanfare::axum::http::StatusCode;
    /// use fanfare::{App, Socket, UpgradeRequest};
    ///
    /// struct Session(String);
    ///
    /// let mut app = App::new();
    /// app.ws("/chat", async |socket: Socket| {
    ///     let name = socket.attached::<Session>().map_or("nobody", |session| &session.0);
    ///     Ok(socket.send(format!("Welcome, {name}"))?)
    /// })
    /// .guard(async |request: &UpgradeRequest| match request.cookie("session") {
    ///     Some(session) => Ok(Session(session.to_owned())),
    ///     None => Err(StatusCode::UNAUTHORIZED),
    /// });
    /// ```
    pub fn guard<G, T, E>(self, guard: G) -> Self
    where
        G: AsyncFn(&UpgradeRequest<'_>) -> Result<T, E> + Send + Sync + 'static,
        T: 'static,
        E: IntoResponse,
    {
        let guard = Arc::new(guard);
        let judge: Guard = Arc::new(move |request| {
            let guard = Arc::clone(&guard);
            Box::pin(async move {
                match guard(request).await {
                    Ok(attached) => Ok(Rc::new(attached) as Attached),
                    Err(answer) => Err(Box::new(answer.into_response())),
                }
            })
        });
        if let Endpoint::Handler(route) = self.0 {
            route.guard = Some(judge);
        }
        self
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("protocols", &self.protocols()).finish_non_exhaustive()
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").finish_non_exhaustive()
    }
}

impl App {
    /// An app without routes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The gateway itself: a page at `/`, the JavaScript client at `/fanfare.js`, `fanfare.v1` at `/ws`, the raw protocol at `/raw/{channel}`, Server-Sent Events at
    /// `/sse` and `/sse/{channel}`.
    #[must_use]
    pub fn gateway() -> Self {
        let mut app = Self { is_gateway: true, ..Self::new() };
        app.get("/", async || axum::response::Html(include_str!("../page/index.html")));
        for script in SCRIPTS {
            app.page(script.path, async move |head: HeaderMap| script.answer(&head));
        }
        for format in Format::all() {
            if let Some(path) = format.protocol().path() {
                app.endpoint(path, Endpoint::Gateway(format));
            }
        }
        for path in STREAMS {
            added(path, app.streams.insert(path, ()));
            app.routes.push(("http", path.to_owned()));
        }
        app
    }

    /// Answers GET requests with an axum handler.
    ///
    /// # Panics
    /// If the path already has a handler or does not begin with `/`, which is a mistake in the program.
    pub fn get<H: Handler<T, ()>, T: 'static>(&mut self, path: &str, handler: H) {
        self.page(path, handler);
        self.routes.push(("http", path.to_owned()));
    }

    /// A page that the list of routes leaves out.
    fn page<H: Handler<T, ()>, T: 'static>(&mut self, path: &str, handler: H) {
        self.pages = std::mem::take(&mut self.pages).route(path, routing::get(handler));
        added(path, self.paths.insert(path, ()));
    }

    /// Has an axum router answer all requests that no other route of the app takes: other methods, middleware, static files.
    /// A request for a WebSocket never reaches it.
    pub fn router(&mut self, router: axum::Router) {
        self.router = Some(match self.router.take() {
            Some(earlier) => earlier.merge(router),
            None => router,
        });
    }

    /// Sends to rooms and routes from HTTP handlers and background tasks.
    #[must_use]
    pub fn publisher(&self) -> rooms::Publisher {
        rooms::Publisher(self.running.clone())
    }

    /// Calls `hook` when the node stops: after its last client has left, and before the broker is closed, so that it may still
    /// publish. It has `broker.publish_timeout`.
    pub fn on_shutdown<F>(&mut self, hook: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shutdown.push(Arc::new(move || Box::pin(hook())));
    }

    /// Sets the program's name and version for `--version` and `--help`: `app.called("chat",
    /// env!("CARGO_PKG_VERSION"))`. By default the name is that of the program's file, and the version is the
    /// library's.
    pub fn called(&mut self, name: &'static str, version: &'static str) {
        self.program = Some((name, version));
    }

    /// The endpoint that serves WebSockets at this path, and the path's parameters.
    pub(crate) fn socket(&self, path: &str) -> Option<(Endpoint, Parameters)> {
        let found = self.sockets.at(path).ok()?;
        let parameters = found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Some((self.endpoints[*found.value].clone(), parameters))
    }

    /// The parameters of a path that serves Server-Sent Events; `None` for another path.
    pub(crate) fn stream(&self, path: &str) -> Option<Parameters> {
        let found = self.streams.at(path).ok()?;
        Some(found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A short list of the paths: of sockets only if `sockets` is true, otherwise of pages too.
    pub(crate) fn paths(&self, sockets: bool) -> String {
        /// The most paths in the list.
        const NAMED: usize = 16;
        let wanted = |(scheme, _): &&(&'static str, String)| !sockets || *scheme == "ws";
        let routes: Vec<_> = self.routes.iter().filter(wanted).map(|(_, path)| path.as_str()).collect();
        let more = if routes.len() > NAMED { ", ..." } else { "" };
        match routes.len() {
            0 => "none".to_owned(),
            _ => routes[..routes.len().min(NAMED)].join(", ") + more,
        }
    }

    /// Whether there is a page at this path.
    pub(crate) fn has_page(&self, path: &str) -> bool {
        self.paths.at(path).is_ok()
    }

    /// Adds a route of WebSockets. The handler is called once for each socket. `{name}` in the path matches one
    /// segment.
    ///
    /// All sockets of the route, on all nodes, receive what any of them broadcasts. The socket is closed when the
    /// handler returns. `app.ws(…).protocols(&["chat.v2"])` sets the subprotocols that the handler supports.
    ///
    /// # Panics
    /// If the path already has a handler, which is a mistake in the program.
    pub fn ws<H>(&mut self, path: &str, handler: H) -> SocketRoute<'_>
    where
        H: AsyncFn(Socket) -> Outcome + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        let handler: SocketHandler = Arc::new(move |socket| {
            let handler = Arc::clone(&handler);
            Box::pin(async move { handler(socket).await })
        });
        let channel = route_channel(path);
        self.endpoint(
            path,
            Endpoint::Handler(AppRoute { channel, handler, protocols: &[], guard: None, resumable: false }),
        )
    }

    fn endpoint(&mut self, path: &str, endpoint: Endpoint) -> SocketRoute<'_> {
        let place = self.endpoints.len();
        added(path, self.sockets.insert(path, place));
        self.routes.push(("ws", path.to_owned()));
        self.endpoints.push(endpoint);
        SocketRoute(&mut self.endpoints[place])
    }
}

/// The channel that all sockets of a route share. Channel names of the gateway's clients must not contain braces, so these
/// clients cannot reach it.
fn route_channel(path: &str) -> String {
    format!("{{app}}{path}")
}

fn added(path: &str, result: Result<(), matchit::InsertError>) {
    if let Err(error) = result {
        panic!("the route {path} cannot be added: {error}");
    }
}
