//! A headless Chromium of this test's own, spoken to over the DevTools protocol: pages are opened, looked at and photographed; what their consoles say and what
//! they ask of any network is kept.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use activity_devstack::{Browser, bound};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{ACTIVITY, PATIENCE};

/// A page of a browser takes this long at most for one step.
const STEP_PATIENCE: Duration = Duration::from_secs(90);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;
type Seen = Arc<Mutex<HashMap<String, Vec<Value>>>>;

/// The browser; killed when dropped.
pub struct Chromium {
    child: Child,
    sends: mpsc::UnboundedSender<(Value, oneshot::Sender<Value>)>,
    /// Events, by the session of the page that they came from.
    seen: Seen,
}

/// One open page.
pub struct Page<'a> {
    browser: &'a Chromium,
    target: String,
    session: String,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub theme: &'static str,
    pub size: &'static str,
    pub width: u32,
    pub height: u32,
    pub mobile: bool,
}

impl Chromium {
    /// Starts it with a folder of its own.
    pub async fn start(browser: &Browser, folder: &Path) -> Self {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).unwrap();
        let log = std::fs::File::create(folder.join("browser.log")).unwrap();
        // Bound to this thread: a test run that is killed leaves no browser behind.
        let mut command: Command = bound(ACTIVITY.as_ref(), None, &browser.program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                // What tries to leave fails at once, and is seen.
                "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
                "--no-proxy-server",
                "--hide-scrollbars",
                "--force-device-scale-factor=1",
                "--remote-debugging-port=0",
                "about:blank",
            ])
            .arg(format!("--user-data-dir={}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if let Some(path) = &browser.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        let child = command.spawn().unwrap();
        let address = Self::address(&folder.join("DevToolsActivePort")).await;
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let (sends, asked) = mpsc::unbounded_channel();
        let seen = Seen::default();
        tokio::spawn(talk(socket, asked, seen.clone()));
        Self { child, sends, seen }
    }

    /// It writes its port and path there when it serves.
    async fn address(file: &Path) -> String {
        let read = async {
            loop {
                let written = std::fs::read_to_string(file).unwrap_or_default();
                if let Some((port, path)) = written.split_once('\n') {
                    return format!("ws://127.0.0.1:{port}{}", path.trim());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, read).await;
        found.expect("the browser does not serve")
    }

    async fn ask(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let (answer, answered) = oneshot::channel();
        let mut message = json!({ "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        self.sends.send((message, answer)).unwrap();
        let answer = tokio::time::timeout(STEP_PATIENCE, answered).await;
        let answer = answer
            .unwrap_or_else(|_| panic!("{method}: no answer"))
            .unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// Opens an address in a page of its own.
    pub async fn open(&self, url: &str, look: Look) -> Page<'_> {
        let target = self
            .ask(None, "Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let target = target["targetId"].as_str().unwrap().to_owned();
        let attach = json!({ "targetId": target, "flatten": true });
        let session = self.ask(None, "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().unwrap().to_owned();
        let page = Page {
            browser: self,
            target,
            session,
        };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.ask(&format!("{domain}.enable"), json!({})).await;
        }
        let media =
            json!({ "features": [{ "name": "prefers-color-scheme", "value": look.theme }] });
        page.ask("Emulation.setEmulatedMedia", media).await;
        let Look {
            width,
            height,
            mobile,
            ..
        } = look;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        page.ask("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        page.ask("Page.navigate", json!({ "url": url })).await;
        page
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Numbers what is asked, and gives each answer to who waits for it.
async fn talk(
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut asked: mpsc::UnboundedReceiver<(Value, oneshot::Sender<Value>)>,
    seen: Seen,
) {
    let (mut writes, mut reads) = socket.split();
    let waiting = Waiting::default();
    let mut last = 0;
    loop {
        tokio::select! {
            Some((mut message, answer)) = asked.recv() => {
                last += 1;
                message["id"] = last.into();
                waiting.lock().unwrap().insert(last, answer);
                writes.send(Message::text(message.to_string())).await.unwrap();
            }
            read = reads.next() => {
                let Some(Ok(message)) = read else { return };
                let Ok(text) = message.to_text() else { continue };
                let Ok(said) = serde_json::from_str::<Value>(text) else { continue };
                if let Some(id) = said["id"].as_u64() {
                    if let Some(answer) = waiting.lock().unwrap().remove(&id) {
                        let _ = answer.send(said);
                    }
                } else if let Some(session) = said["sessionId"].as_str() {
                    seen.lock().unwrap().entry(session.to_owned()).or_default().push(said);
                }
            }
        }
    }
}

impl Page<'_> {
    async fn ask(&self, method: &str, params: Value) -> Value {
        self.browser.ask(Some(&self.session), method, params).await
    }

    /// The value of an expression, waited for where it is a promise.
    pub async fn evaluate(&self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.ask("Runtime.evaluate", params).await;
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until the page has loaded and an expression holds.
    pub async fn until(&self, expression: &str) {
        let look = format!("document.readyState === 'complete' && ({expression})");
        let holds = async {
            while self.evaluate(&look).await != true {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let held = tokio::time::timeout(STEP_PATIENCE, holds).await;
        assert!(held.is_ok(), "waited in vain for {expression}");
    }

    /// Presses a key.
    pub async fn press(&self, key: &str, code: u32) {
        for kind in ["rawKeyDown", "keyUp"] {
            let params =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.ask("Input.dispatchKeyEvent", params).await;
        }
    }

    /// The whole page as a picture.
    pub async fn photograph(&self, file: &PathBuf) {
        let size = self.ask("Page.getLayoutMetrics", json!({})).await["cssContentSize"].clone();
        let clip =
            json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let params = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.ask("Page.captureScreenshot", params).await;
        let bytes = BASE64_STANDARD
            .decode(picture["data"].as_str().unwrap())
            .unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    fn events(&self, method: &str) -> Vec<Value> {
        let seen = self.browser.seen.lock().unwrap();
        let all = seen.get(&self.session).into_iter().flatten();
        let meant = all.filter(|event| event["method"] == method);
        meant.map(|event| event["params"].clone()).collect()
    }

    /// What the console says that somebody must act on.
    pub fn console_errors(&self) -> Vec<String> {
        let thrown = self.events("Runtime.exceptionThrown");
        let called = self.events("Runtime.consoleAPICalled").into_iter();
        let called = called.filter(|call| call["type"] == "error" || call["type"] == "warning");
        let logged = self.events("Log.entryAdded").into_iter();
        let logged = logged.filter(|log| log["entry"]["level"] == "error");
        let all = thrown.into_iter().chain(called).chain(logged);
        all.map(|event| event.to_string()).collect()
    }

    /// Addresses asked for that are not of this server.
    pub fn requests_elsewhere(&self, server: &str) -> Vec<String> {
        let sent = self.events("Network.requestWillBeSent");
        let urls = sent.iter().map(|request| &request["request"]["url"]);
        let sockets = self.events("Network.webSocketCreated");
        let urls = urls.chain(sockets.iter().map(|socket| &socket["url"]));
        let urls = urls.filter_map(Value::as_str);
        let is_ours = |url: &&str| !url.starts_with(server) && !url.starts_with("data:");
        urls.filter(is_ours).map(str::to_owned).collect()
    }

    /// How many requests it has sent.
    pub fn requests(&self) -> usize {
        self.events("Network.requestWillBeSent").len()
    }

    pub async fn close(self) {
        let params = json!({ "targetId": self.target });
        self.browser.ask(None, "Target.closeTarget", params).await;
    }
}
