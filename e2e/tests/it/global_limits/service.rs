//! `tulle ratelimit` as those see it who ask it: files, Redis, and the real Envoy.

use std::path::PathBuf;
use std::process::Command;

use testkit::origin::Origin;
use testkit::place::{DataDir, free_port};
use testkit::process::Process;
use testkit::raw::Raw;
use tonic::Code;
use xds::proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use xds::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::{
    Entry, RateLimitOverride,
};
use xds::proto::envoy::r#type::v3::RateLimitUnit;
use xds::proto::ratelimit::rate_limit_response::Code as Said;
use xds::proto::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use xds::proto::ratelimit::{RateLimitRequest, RateLimitResponse};

use crate::grpc::runtime;
use crate::mesh::{SOON, binary};

/// A service without a mesh.
struct Service {
    process: Process,
    port: u16,
    metrics: u16,
}

impl Service {
    fn start(name: &str, dir: &DataDir, arguments: &[&str]) -> Self {
        let (port, metrics) = (free_port(), free_port());
        let mut command = Command::new(binary());
        command.args(["-v", "ratelimit", "--listen", &format!("127.0.0.1:{port}")]);
        command
            .args(["--metrics", &format!("127.0.0.1:{metrics}")])
            .args(arguments);
        let mut process = Process::spawn(name, &mut command, dir.path());
        process.wait_stderr("is ready", SOON);
        Self {
            process,
            port,
            metrics,
        }
    }

    fn page(&self, path: &str) -> (u16, String) {
        let mut raw = Raw::connect(("127.0.0.1", self.metrics)).expect("it listens");
        let response = raw.get("localhost", path);
        (response.status, response.text())
    }

    /// Asks about one request; what is said overall.
    fn ask(&self, entries: &[(&str, &str)], limit: Option<u32>) -> Result<Said, Code> {
        self.answer(entries, limit)
            .map(|answer| answer.overall_code())
    }

    fn answer(
        &self,
        entries: &[(&str, &str)],
        limit: Option<u32>,
    ) -> Result<RateLimitResponse, Code> {
        let entries = entries.iter().map(|(key, value)| Entry {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
        });
        let question = RateLimitRequest {
            domain: "shop".to_owned(),
            descriptors: vec![RateLimitDescriptor {
                entries: entries.collect(),
                limit: limit.map(|requests_per_unit| RateLimitOverride {
                    requests_per_unit,
                    unit: RateLimitUnit::Day.into(),
                }),
                hits_addend: None,
            }],
            hits_addend: 0,
        };
        let address = format!("http://127.0.0.1:{}", self.port);
        runtime().block_on(async {
            let client = RateLimitServiceClient::connect(address).await;
            let answer = client
                .expect("it listens")
                .should_rate_limit(question)
                .await;
            answer
                .map(tonic::Response::into_inner)
                .map_err(|status| status.code())
        })
    }
}

#[test]
fn limits_in_files_change_while_it_runs_and_bad_ones_stay_out() {
    let dir = DataDir::new("ratelimit");
    let limits = |requests: u32, more: &str| {
        let text = format!(
            "domain: shop\ndescriptors:\n- {{key: path, rate_limit: {{unit: day, requests_per_unit: {requests}, name: paths}}}}\n{more}"
        );
        dir.write("limits/shop.yaml", text);
    };
    limits(1, "");
    let config = dir.join("limits");
    let config = config.to_str().unwrap();
    let mut service = Service::start("service", &dir, &["--config", config, "--response-headers"]);
    let answer = service.answer(&[("path", "/a")], None).unwrap();
    assert_eq!(answer.overall_code(), Said::Ok);
    assert_eq!(
        answer.response_headers_to_add[0].value,
        "\"paths\";q=1;w=86400"
    );
    assert_eq!(service.ask(&[("path", "/a")], None), Ok(Said::OverLimit));
    assert_eq!(service.ask(&[("nothing", "x")], None), Ok(Said::Ok));
    assert_eq!(service.ask(&[], None), Err(Code::InvalidArgument));

    limits(2, "typo: 1\n");
    let said = service.process.wait_stderr("typo", SOON);
    assert!(said.contains("shop.yaml:4"), "{said}");
    assert_eq!(service.ask(&[("path", "/a")], None), Ok(Said::OverLimit));
    let invalid = service.page("/metrics").1;
    assert!(
        invalid.contains("tulle_ratelimit_config_invalid 1"),
        "{invalid}"
    );

    limits(100, "");
    service.process.wait_stderr("limits have changed", SOON);
    assert_eq!(service.ask(&[("path", "/a")], None), Ok(Said::Ok));
    assert_eq!(service.page("/healthz/ready"), (200, "ready\n".to_owned()));
    assert!(service.process.terminate(SOON).success());

    // At the start nothing was in force before.
    limits(1, "typo: 1\n");
    let mut command = Command::new(binary());
    command.args([
        "ratelimit",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
    ]);
    command.args(["--config", config]);
    let ended = Process::run("bad", &mut command, dir.path(), SOON);
    assert_eq!(ended.code(), 2, "{ended:?}");
    assert!(ended.stderr.contains("shop.yaml:4"), "{ended:?}");
}

/// A program that is looked for on the path, as those do who start it.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut all = std::env::split_paths(&path).map(|dir| dir.join(program));
    all.find(|file| file.is_file())
}

struct Redis {
    process: Process,
}

impl Redis {
    fn start(program: &PathBuf, dir: &DataDir, port: u16) -> Self {
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args([
            "--requirepass",
            "secret",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(dir.path());
        let mut process = Process::spawn("redis", &mut command, dir.path());
        process.wait_stdout("Ready to accept connections", SOON);
        Self { process }
    }
}

#[test]
fn two_of_them_share_counts_in_redis_and_survive_its_absence() {
    let Some(program) = found("redis-server") else {
        eprintln!("skipped: there is no redis-server; scripts/setup.sh installs it as root");
        return;
    };
    let dir = DataDir::new("ratelimit");
    let port = free_port();
    let mut redis = Redis::start(&program, &dir, port);
    let store = format!("redis://:secret@127.0.0.1:{port}/1");
    let both = ["one", "two"].map(|name| Service::start(name, &dir, &["--store", &store]));
    let ask = |at: usize, user: &str| both[at].ask(&[("user", user)], Some(4));
    let said = [0, 1, 0, 1, 0, 1].map(|at| ask(at, "ann"));
    let (ok, over) = (Ok(Said::Ok), Ok(Said::OverLimit));
    assert_eq!(said, [ok, ok, ok, ok, over, over]);
    assert_eq!(ask(1, "bob"), ok);

    redis.process.kill();
    assert_eq!(ask(0, "ann"), Err(Code::Unavailable));
    let page = both[0].page("/metrics").1;
    assert!(
        page.contains("tulle_ratelimit_errors_total{reason=\"store\"} 1"),
        "{page}"
    );
    let _again = Redis::start(&program, &dir, port);
    for at in [0, 1] {
        testkit::wait_for("redis to be found again", SOON, || {
            ask(at, "eve").is_ok().then_some(())
        });
    }
    // With a wrong password nobody is let in, and it is said why without it.
    let wrong = format!("redis://:wrong@127.0.0.1:{port}");
    let mut third = Service::start("three", &dir, &["--store", &wrong]);
    assert_eq!(
        third.ask(&[("user", "ann")], Some(1)),
        Err(Code::Unavailable)
    );
    let warned = third.process.wait_stderr("cannot be reached", SOON);
    assert!(!warned.contains(":wrong@"), "{warned}");
}

/// `$ENVOY_BIN` or `envoy` on the path; `scripts/envoy.sh` gets one.
fn envoy() -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY_BIN").map(PathBuf::from);
    named.or_else(|| found("envoy"))
}

#[test]
fn the_real_envoy_asks_it() {
    let Some(program) = envoy() else {
        eprintln!("skipped: there is no Envoy; scripts/envoy.sh gets one, for ENVOY_BIN");
        return;
    };
    let dir = DataDir::new("ratelimit");
    dir.write(
        "shop.yaml",
        "domain: shop\ndescriptors:\n- {key: user, rate_limit: {unit: day, requests_per_unit: 2, name: users}}\n- {key: user, value: root, rate_limit: {unlimited: true}}\n",
    );
    let config = dir.join("shop.yaml");
    let arguments = ["--config", config.to_str().unwrap(), "--response-headers"];
    let service = Service::start("service", &dir, &arguments);
    let origin = Origin::start();
    let port = free_port();
    let file = dir.write(
        "envoy.json",
        bootstrap(port, origin.addr().port(), service.port),
    );
    let mut command = Command::new(program);
    command.arg("-c").arg(file);
    command.args([
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "-l",
        "warning",
    ]);
    let mut envoy = Process::spawn("envoy", &mut command, dir.path());
    let get = |user: &str| {
        let mut raw = Raw::connect(("127.0.0.1", port)).ok()?;
        raw.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"
        ))
        .ok()?;
        raw.response(SOON).ok()
    };
    envoy.wait_for("Envoy serves", SOON, || {
        (get("root")?.status == 200).then_some(())
    });
    let statuses = [(); 3].map(|()| get("ann").unwrap().status);
    assert_eq!(statuses, [200, 200, 429]);
    let refused = get("ann").unwrap();
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"users\";q=2;w=86400")
    );
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    // Envoy's own headers are made of what the service says of the limit.
    let limit = refused.header("x-ratelimit-limit").unwrap();
    assert!(limit.starts_with("2, 2;w=86400"), "{limit}");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(get("bob").unwrap().status, 200);
    assert_eq!(get("root").unwrap().status, 200);
}

/// An Envoy that asks about each request by the value of `x-user`.
fn bootstrap(port: u16, origin: u16, service: u16) -> String {
    let cluster = |name: &str, port: u16, version: &str| {
        format!(
            r#"{{"name":"{name}","type":"STATIC","connect_timeout":"5s","load_assignment":{{"cluster_name":"{name}","endpoints":[{{"lb_endpoints":[{{"endpoint":{{"address":{{"socket_address":{{"address":"127.0.0.1","port_value":{port}}}}}}}}}]}}]}},
"typed_extension_protocol_options":{{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions","explicit_http_config":{{"{version}":{{}}}}}}}}}}"#
        )
    };
    let (origin, service) = (
        cluster("origin", origin, "http_protocol_options"),
        cluster("service", service, "http2_protocol_options"),
    );
    let ours = "type.googleapis.com/envoy.extensions.filters";
    format!(
        r#"{{"static_resources":{{"clusters":[{origin},{service}],"listeners":[{{"address":{{"socket_address":{{"address":"127.0.0.1","port_value":{port}}}}},
"filter_chains":[{{"filters":[{{"name":"http","typed_config":{{"@type":"{ours}.network.http_connection_manager.v3.HttpConnectionManager","stat_prefix":"in",
"route_config":{{"virtual_hosts":[{{"name":"all","domains":["*"],"routes":[{{"match":{{"prefix":"/"}},"route":{{"cluster":"origin",
"rate_limits":[{{"actions":[{{"request_headers":{{"header_name":"x-user","descriptor_key":"user"}}}}]}}]}}}}]}}]}},
"http_filters":[{{"name":"envoy.filters.http.ratelimit","typed_config":{{"@type":"{ours}.http.ratelimit.v3.RateLimit","domain":"shop","failure_mode_deny":true,"timeout":"5s","enable_x_ratelimit_headers":"DRAFT_VERSION_03",
"rate_limit_service":{{"transport_api_version":"V3","grpc_service":{{"envoy_grpc":{{"cluster_name":"service"}}}}}}}}}},
{{"name":"router","typed_config":{{"@type":"{ours}.http.router.v3.Router"}}}}]}}}}]}}]}}]}}}}"#
    )
}
