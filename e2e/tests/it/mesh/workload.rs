//! A workload as its program and its peers see it, and what its proxy tells.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use testkit::deadline::try_wait_for;
use testkit::process::Process;
use testkit::raw::{Raw, Response};
use testkit::upstream::Upstream;

use super::{Mode, SOON, call};

/// A workload whose program does nothing, with its proxy.
pub(crate) struct Workload {
    pub(crate) name: String,
    /// `tulle run`.
    pub(crate) process: Process,
    /// Process id of the program.
    pub(super) app: i32,
    pub(super) mode: Mode,
    /// What the program was told in `HTTP_PROXY`.
    pub(super) outbound: Option<SocketAddr>,
    /// Its proxy's state directory.
    pub(crate) state: PathBuf,
    pub(super) socket: PathBuf,
}

impl Workload {
    /// Does something in the network namespace of the workload.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        if self.mode == Mode::Explicit {
            return act();
        }
        let path = format!("/proc/{}/ns/net", self.app);
        let namespace = File::open(path).expect("the program runs");
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                act()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A connection for requests to `host`, which may have a port.
    #[track_caller]
    pub(crate) fn connect(&self, host: &str) -> Raw {
        let address = self.way(host);
        self.inside(|| Raw::connect(address).expect("the proxy accepts"))
    }

    /// Where the program would connect to for requests to `host`: its proxy, or the service.
    pub(crate) fn way(&self, host: &str) -> SocketAddr {
        match self.outbound {
            Some(proxy) => proxy,
            None => self.service_address(host),
        }
    }

    fn service_address(&self, host: &str) -> SocketAddr {
        let (name, port) = host.split_once(':').unwrap_or((host, "80"));
        let port = port.parse().expect("a port");
        if let Ok(ip) = name.parse::<IpAddr>() {
            return SocketAddr::new(ip, port);
        }
        let service = name.split('.').next().unwrap_or(name);
        let (_, body) = call(&self.socket, "GET", "/api/v1/status", "").expect("an answer");
        let status: Value = serde_json::from_str(&body).expect("JSON");
        let services = status["services"].as_array().expect("services");
        let found = services.iter().find(|s| s["name"] == service);
        let address = found.and_then(|s| s["addresses"][0].as_str());
        let ip = address.unwrap_or_else(|| panic!("service {service} has no address: {body}"));
        SocketAddr::new(ip.parse().expect("an address"), port)
    }

    /// The first line of a request, with `Host`, in the form that the program would use.
    pub(crate) fn head(&self, method: &str, host: &str, path: &str) -> String {
        match self.mode {
            Mode::Explicit => format!("{method} http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n"),
            Mode::Transparent => format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n"),
        }
    }

    /// One request without a body on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, host: &str, path: &str) -> Response {
        self.request("GET", host, path, "", "")
    }

    /// One request on a connection of its own; `headers` are whole lines.
    #[track_caller]
    pub(crate) fn request(
        &self,
        method: &str,
        host: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> Response {
        self.connect(host)
            .request(self.text(method, host, path, headers, body))
    }

    /// The bytes of a request.
    pub(crate) fn text(
        &self,
        method: &str,
        host: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> String {
        let length = match body.len() {
            0 => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let head = self.head(method, host, path);
        format!("{head}{headers}{length}\r\n{body}")
    }

    /// Repeats a request until the answer is as wanted: for changes that are on their way.
    #[track_caller]
    pub(crate) fn until(
        &self,
        what: &str,
        host: &str,
        path: &str,
        wanted: impl Fn(&Response) -> bool,
    ) -> Response {
        let mut last = None;
        let found = try_wait_for(SOON, || {
            let response = self.get(host, path);
            let found = wanted(&response);
            last = Some(response.clone());
            found.then_some(response)
        });
        found.unwrap_or_else(|| panic!("waited in vain for {what}; the last answer: {last:?}"))
    }

    /// A connection for bytes to a port of a service: a CONNECT tunnel, or a connection to it.
    #[track_caller]
    pub(crate) fn tunnel(&self, host_and_port: &str) -> Raw {
        let mut raw = self.connect(host_and_port);
        if self.mode == Mode::Explicit {
            raw.send(format!(
                "CONNECT {host_and_port} HTTP/1.1\r\nHost: {host_and_port}\r\n\r\n"
            ))
            .expect("the proxy takes the request");
            let head = raw
                .read_until(b"\r\n\r\n", SOON)
                .expect("an answer to CONNECT");
            let head = String::from_utf8_lossy(&head).into_owned();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        raw
    }

    /// A port of the proxy: `metrics`, `admin`, `tunnel`, `explicit_http`.
    pub(crate) fn proxy_port(&self, name: &str) -> u16 {
        testkit::wait_for(&format!("port {name} of {}", self.name), SOON, || {
            let (_, body) = call(&self.socket, "GET", "/api/v1/status", "")?;
            let status: Value = serde_json::from_str(&body).ok()?;
            let workloads = status["workloads"].as_array()?;
            let own = workloads.iter().find(|w| w["name"] == self.name.as_str())?;
            let port = own["lease"]["proxyPorts"][name].as_u64()?;
            u16::try_from(port).ok()
        })
    }

    /// A page of the proxy's `admin` or `metrics` port.
    #[track_caller]
    pub(crate) fn page(&self, port: &str, path: &str) -> String {
        let address = (Ipv4Addr::LOCALHOST, self.proxy_port(port));
        self.inside(|| {
            let mut raw = Raw::connect(address).expect("the proxy listens");
            let response = raw.get("localhost", path);
            assert_eq!(response.status, 200, "{path}: {response:?}");
            response.text()
        })
    }

    /// The value of a series: the sum over all whose labels include these.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.page("metrics", "/metrics");
        let wanted: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let of_name = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        page.lines()
            .filter(of_name)
            .filter(|line| wanted.iter().all(|label| line.contains(label.as_str())))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// The lines of the proxy's access log so far.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.state.join("access.log")).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("each line is JSON")).collect()
    }

    /// The process id of the proxy.
    pub(crate) fn proxy_pid(&self) -> i32 {
        let parent = self.process.pid();
        testkit::wait_for("the proxy's process", SOON, || {
            let children = format!("/proc/{parent}/task/{parent}/children");
            let children = fs::read_to_string(children).ok()?;
            children.split_whitespace().find_map(|pid| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                line.contains("--workload").then(|| pid.parse().ok())?
            })
        })
    }
}

/// A workload whose port is served by the test.
pub(crate) struct Server {
    pub(crate) workload: Workload,
    pub(crate) upstream: Upstream,
}
