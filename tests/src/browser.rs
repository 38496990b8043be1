//! A real Chromium, driven over the W3C WebDriver protocol.
//!
//! Owns one chromedriver with one browser; each [`Page`] is a window of it. Both end with the
//! `Browser` and its pages, and also when the test process itself is killed.

use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

/// The Enter key, for [`Page::fill`] and [`Page::press`].
pub const ENTER: &str = "\u{E007}";

/// How long one WebDriver command may take; starting the browser on a busy machine is the slowest.
const COMMAND: Duration = Duration::from_secs(60);
/// How often [`Page::wait_until`] looks.
const GLANCE: Duration = Duration::from_millis(25);

/// Runs chromedriver until its standard input closes, which the kernel does even if we are killed;
/// then ends the whole session of processes and removes its files. Ctrl-C must not stop it halfway.
const SUPERVISOR: &str = r#"
    trap '' HUP INT TERM
    command -v pkill setsid >/dev/null || exit
    folder=$(mktemp -d) && echo "$folder"
    TMPDIR=$folder setsid chromedriver --port=0 2>/dev/null &
    session=$!
    cat >/dev/null
    pkill -KILL -s $session
    wait
    # One pass misses a process that was just being forked, and a killed one needs a moment to end.
    while pgrep -r D,R,S,T -s $session >/dev/null; do pkill -KILL -s $session; done
    rm -rf "$folder"
"#;

const CHROMIUM: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
];

/// A running Chromium with no window open that anyone looks at.
pub struct Browser {
    session: Arc<Session>,
}

/// One window of a [`Browser`].
pub struct Page {
    session: Arc<Session>,
    window: String,
}

impl Browser {
    /// Starts chromedriver on a free port, and Chromium with a fresh profile.
    ///
    /// Needs the Debian packages `chromium`, `chromium-driver` and `procps`.
    pub async fn start() -> Result<Self> {
        let driver = Driver::start()?;
        let mut args: Vec<String> = CHROMIUM.iter().map(ToString::to_string).collect();
        args.push(format!("--user-data-dir={}/profile", driver.folder));
        let mut session = Session { driver, id: String::new(), focused: Mutex::default() };
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
            // Those of the tests sign themselves.
            "acceptInsecureCerts": true,
        } } });
        let started = session.http("POST", "/session", &wanted).await.context("starting Chromium")?;
        session.id = text_of(&started["sessionId"])?;
        Ok(Self { session: Arc::new(session) })
    }

    /// Opens `url` in a new window, and returns when it has loaded.
    pub async fn open(&self, url: &str) -> Result<Page> {
        // A window of its own, not a tab: a tab behind another one has its timers slowed down.
        let opened = {
            let _focused = self.session.focused.lock().await;
            self.session.command("POST", "/window/new", &json!({ "type": "window" })).await?
        };
        let page = Page { session: Arc::clone(&self.session), window: text_of(&opened["handle"])? };
        page.goto(url).await?;
        Ok(page)
    }
}

impl Page {
    /// Navigates to `url`, and returns when it has loaded.
    pub async fn goto(&self, url: &str) -> Result<()> {
        self.post("/url", &json!({ "url": url })).await.map(drop)
    }

    /// Loads the same address again.
    pub async fn reload(&self) -> Result<()> {
        self.post("/refresh", &json!({})).await.map(drop)
    }

    /// The visible text of the first element that matches `css`.
    pub async fn text(&self, css: &str) -> Result<String> {
        let element = self.element(css).await?;
        text_of(&self.call("GET", &format!("{element}/text"), &Value::Null).await?)
    }

    /// Replaces the text of a field, key by key as a person would (no emoji: chromedriver cannot type them).
    pub async fn fill(&self, css: &str, text: &str) -> Result<()> {
        let element = self.element(css).await?;
        self.post(&format!("{element}/clear"), &json!({})).await?;
        self.post(&format!("{element}/value"), &json!({ "text": text })).await.map(drop)
    }

    /// Types into an element without clearing it first, such as [`ENTER`].
    pub async fn press(&self, css: &str, keys: &str) -> Result<()> {
        let element = self.element(css).await?;
        self.post(&format!("{element}/value"), &json!({ "text": keys })).await.map(drop)
    }

    /// Clicks the first element that matches `css`; an error if something covers it.
    pub async fn click(&self, css: &str) -> Result<()> {
        let element = self.element(css).await?;
        self.post(&format!("{element}/click"), &json!({})).await.map(drop)
    }

    /// The value of a JavaScript expression, once settled if it is a promise.
    pub async fn eval(&self, js: &str) -> Result<Value> {
        self.post("/execute/sync", &json!({ "script": format!("return ({js}\n)"), "args": [] })).await
    }

    /// Waits until a JavaScript expression is truthy, and returns its value.
    ///
    /// An expression that throws counts as not yet true, so it may name what does not exist yet.
    pub async fn wait_until(&self, js: &str, patience: Duration) -> Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            let seen = self.eval(js).await;
            match seen {
                Ok(ref value) if truthy(value) => return seen,
                _ if Instant::now() < deadline => sleep(GLANCE).await,
                _ => {
                    let page = self.eval("document.body.innerText").await;
                    bail!("not true after {patience:?}: {js}\nlast: {seen:?}\nthe page: {page:#?}");
                }
            }
        }
    }

    /// What the page's console has said since the last call: errors, refused resources, `console.log`.
    pub async fn console(&self) -> Result<Vec<String>> {
        let said = self.post("/se/log", &json!({ "type": "browser" })).await?;
        Ok(said.as_array().into_iter().flatten().map(|entry| entry["message"].to_string()).collect())
    }

    /// Shows the page as on a screen of this size, light or dark.
    pub async fn appear(&self, width: u32, height: u32, scheme: &str) -> Result<()> {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await?;
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", scheme).await.map(drop)
    }

    /// One command of the Chrome DevTools protocol, for what WebDriver has no word for.
    pub async fn devtools(&self, command: &str, params: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params })).await
    }

    /// Writes what the window shows to a PNG file, making its folder if need be.
    pub async fn screenshot(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let shot = self.call("GET", "/screenshot", &Value::Null).await?;
        let png = BASE64_STANDARD.decode(text_of(&shot)?)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, png).with_context(|| format!("writing {}", path.display()))
    }

    /// Closes the window, as a person does: the page's sockets close with it.
    pub async fn close(self) -> Result<()> {
        self.call("DELETE", "/window", &Value::Null).await.map(drop)
    }

    async fn element(&self, css: &str) -> Result<String> {
        let found = self.post("/element", &json!({ "using": "css selector", "value": css })).await?;
        let id = found.as_object().and_then(|reference| reference.values().next());
        Ok(format!("/element/{}", text_of(id.context("no element reference")?)?))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call("POST", path, body).await
    }

    /// WebDriver has one current window per session, so choosing it and using it must be one step.
    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let mut focused = self.session.focused.lock().await;
        if *focused != self.window {
            self.session.command("POST", "/window", &json!({ "handle": self.window })).await?;
            focused.clone_from(&self.window);
        }
        self.session.command(method, path, body).await
    }
}

/// One WebDriver session, and the way to speak to it.
struct Session {
    driver: Driver,
    id: String,
    focused: Mutex<String>,
}

impl Session {
    async fn command(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        self.http(method, &format!("/session/{}{path}", self.id), body).await
    }

    /// One HTTP exchange on a connection of its own: slow for a server, plenty for a test.
    async fn http(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.driver.address).await?;
            let body = if body.is_null() { String::new() } else { body.to_string() };
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                self.driver.address,
                body.len(),
            );
            stream.write_all(request.as_bytes()).await?;
            answer_body(&mut BufStream::new(stream)).await
        };
        let body = timeout(COMMAND, exchange)
            .await
            .with_context(|| format!("chromedriver has not answered {method} {path} in {COMMAND:?}"))?
            .with_context(|| format!("{method} {path}"))?;
        let value = serde_json::from_slice::<Value>(&body)?["value"].take();
        match value["error"].as_str() {
            Some(error) => Err(anyhow!("{method} {path}: {error}: {}", value["message"].as_str().unwrap_or_default())),
            None => Ok(value),
        }
    }
}

/// The supervisor, and through it chromedriver and Chromium.
struct Driver {
    supervisor: Child,
    /// Kept open, or chromedriver's next line would end it.
    output: BufReader<ChildStdout>,
    /// All that chromedriver and Chromium write.
    folder: String,
    address: SocketAddr,
}

impl Driver {
    /// Returns when chromedriver listens. Blocks the test's thread for some milliseconds.
    fn start() -> Result<Self> {
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting chromedriver's supervisor")?;
        let output = BufReader::new(supervisor.stdout.take().context("the supervisor has no output")?);
        let unspecified = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut driver = Self { supervisor, output, folder: String::new(), address: unspecified };

        let missing = "chromedriver did not start: are chromium-driver and procps installed?";
        let mut lines = (&mut driver.output).lines();
        driver.folder = lines.next().context(missing)??;
        for line in lines {
            let line = line?;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                driver.address.set_port(port.trim_end_matches('.').parse().context("chromedriver's port")?);
                return Ok(driver);
            }
        }
        bail!(missing)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        // Returns when everything is dead: the supervisor's last acts take milliseconds.
        if let Err(error) = self.supervisor.wait() {
            eprintln!("the browser's supervisor: {error}");
        }
    }
}

/// The body of one HTTP answer; chromedriver always gives its length, and keeps the connection open.
async fn answer_body(stream: &mut (impl AsyncBufRead + Unpin)) -> Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        match line.trim_end().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse()?,
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

fn text_of(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("not a string: {value}"))
}

/// As JavaScript sees it.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(bool) => *bool,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_browser_that_is_dropped_leaves_no_process_and_no_file() {
        let browser = Browser::start().await.unwrap();
        let page = browser.open("data:text/html,<title>hello</title>").await.unwrap();
        assert_eq!(page.eval("document.title").await.unwrap(), "hello");
        let Driver { folder, address, .. } = &page.session.driver;
        let (folder, address) = (folder.clone(), *address);
        assert!(alive(&folder), "Chromium names its profile on its command line");
        drop((browser, page));
        assert!(!alive(&folder));
        assert!(!Path::new(&folder).exists());
        assert!(TcpStream::connect(address).await.is_err());
    }

    /// Whether any process was started with `name` among its arguments; a zombie has none.
    fn alive(name: &str) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut commands = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        commands.any(|command| String::from_utf8_lossy(&command).contains(name))
    }
}
