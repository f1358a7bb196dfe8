use std::path::Path;
use std::time::Duration;

use config::{ObjectKey, ObjectKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::local::{Running, Supervisor};
use super::*;
use crate::change::{Change, ChangeSet, Origin};
use crate::published::Reach;
use crate::testing::{World, puts};

const SOON: Duration = Duration::from_secs(20);

/// A port that is free now.
fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").port()
}

fn gateway(name: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  gatewayClassName: tulle\n  addresses: [{{value: 127.0.0.1}}]\n  listeners: [{{name: http, port: {port}, protocol: HTTP}}]\n"
    )
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(ObjectKind::Gateway, "shop", name)
}

/// A supervisor whose children are a script that says with what it was started.
struct Kept {
    world: World,
    children: Children,
    running: Running,
}

impl Kept {
    async fn start(script: &str) -> Self {
        let world = World::new().await;
        let dir = world.dir.path().to_string_lossy().into_owned();
        let arguments = ["-c", script, "serve", &dir].map(str::to_owned);
        let children = Children::default();
        let running = Supervisor {
            program: Program {
                path: "/bin/sh".into(),
                arguments: arguments.to_vec(),
            },
            data_dir: world.dir.path().to_owned(),
            xds: "0.0.0.0:15012".parse().expect("an address"),
            state: world.state.clone(),
            authority: world.authority.clone(),
            children: children.clone(),
        };
        Self {
            running: running.start().expect("started"),
            world,
            children,
        }
    }

    async fn apply(&self, text: &str) {
        let set = puts(text, &Origin::Api);
        self.world.state.apply(set).await.expect("applied");
    }

    async fn delete(&self, name: &str) {
        let set = ChangeSet {
            changes: vec![Change::Delete {
                key: key(name),
                origin: Origin::Api,
            }],
            who: "test".to_owned(),
            ..ChangeSet::default()
        };
        self.world.state.apply(set).await.expect("deleted");
    }

    fn pid(&self, name: &str) -> Option<u32> {
        self.children.find(&key(name))?.pid
    }

    fn reach(&self, name: &str) -> Option<Reach> {
        self.world.state.published().find(&key(name))
    }
}

async fn until<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let look = async {
        loop {
            if let Some(found) = seen() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(SOON, look).await;
    found.unwrap_or_else(|_| panic!("not in time: {what}"))
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn is_alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
}

/// Says in `said` that it runs and with what, and in `ended` that it was asked to end.
const LASTING: &str = r#"dir=$1; shift
echo "$@" >> "$dir/said"
trap 'echo ended >> "$dir/ended"; exit 0' TERM
while :; do sleep 0.05; done"#;

#[tokio::test]
async fn a_gateway_has_a_process_as_long_as_it_is_there() {
    let kept = Kept::start(LASTING).await;
    kept.apply(&gateway("web", free_port())).await;
    let said = kept.world.dir.path().join("said");
    let line = until("started", || lines(&said).first().cloned()).await;
    let dir = kept.world.dir.path().join("gateways/shop/web");
    for argument in [
        "gateway --name shop/web",
        "--xds 127.0.0.1:15012",
        &format!("--state-dir {}", dir.display()),
        "--admin off",
    ] {
        assert!(line.contains(argument), "{line}");
    }
    let token = std::fs::read_to_string(dir.join("token")).expect("a token");
    let record = kept.world.authority.check_token(&token).await;
    let record = record.expect("a good token");
    assert_eq!(
        (&*record.namespace, &*record.service_account),
        ("shop", "web")
    );
    let pid = until("its process", || kept.pid("web")).await;
    let reach = until("its address", || kept.reach("web")).await;
    assert_eq!(reach.addresses[0].value, "127.0.0.1");
    assert_eq!(reach.problem, None);

    // Another listener is nothing to start anew for; another Gateway has its own.
    kept.apply(&gateway("web", free_port())).await;
    kept.apply(&gateway("other", free_port())).await;
    until("the other's", || kept.pid("other")).await;
    let begun = || lines(&said).len();
    until("it says so", || (begun() == 2).then_some(())).await;
    assert_eq!((kept.pid("web"), begun()), (Some(pid), 2));

    kept.delete("web").await;
    let ended = kept.world.dir.path().join("ended");
    until("ended", || (lines(&ended).len() == 1).then_some(())).await;
    until("forgotten", || kept.reach("web").is_none().then_some(())).await;
    assert!(!is_alive(pid) && kept.children.find(&key("web")).is_none());

    // The end of the control plane is theirs.
    let other = kept.pid("other").expect("runs");
    kept.running.end().await;
    assert_eq!(lines(&ended).len(), 2);
    assert!(!is_alive(other));
}

#[tokio::test]
async fn one_that_dies_is_started_again_and_its_status_says_so() {
    let kept = Kept::start("exit 3").await;
    kept.apply(&gateway("web", free_port())).await;
    let problem = until("a problem", || kept.reach("web")?.problem).await;
    assert_eq!(problem.reason, "NoResources");
    assert!(problem.message.contains("exit status: 3"), "{problem:?}");
    until("restarts", || {
        (kept.children.find(&key("web"))?.restarts >= 2).then_some(())
    })
    .await;
    kept.running.end().await;

    let kept = Kept::start(LASTING).await;
    kept.apply(&gateway("web", free_port())).await;
    let pid = until("its process", || kept.pid("web")).await;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).expect("killed");
    let next = until("the next", || kept.pid("web").filter(|next| *next != pid)).await;
    assert!(is_alive(next));
    let whole = || kept.reach("web")?.problem.is_none().then_some(());
    until("no problem any more", whole).await;
    kept.running.end().await;
}

#[tokio::test]
async fn what_another_process_serves_is_left_alone() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let kept = Kept::start(LASTING).await;
    kept.apply(&gateway("web", port)).await;
    let problem = until("a problem", || kept.reach("web")?.problem).await;
    let says = format!("port {port} is taken");
    assert!(problem.message.contains(&says), "{problem:?}");
    assert_eq!(kept.pid("web"), None);
    // As soon as it has gone, it is our turn.
    drop(taken);
    until("started", || kept.pid("web")).await;
    kept.running.end().await;
}

#[tokio::test]
async fn gateways_of_other_classes_are_others_business() {
    let kept = Kept::start(LASTING).await;
    let foreign = gateway("foreign", free_port())
        .replace("gatewayClassName: tulle", "gatewayClassName: nginx");
    kept.apply(&foreign).await;
    kept.apply(&gateway("web", free_port())).await;
    until("ours", || kept.pid("web")).await;
    assert_eq!(kept.children.find(&key("foreign")), None);
    kept.running.end().await;
}

/// A class whose Gateways share a proxy, and one of them.
fn sharing(name: &str, port: u16) -> String {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: shared, annotations: {tulle.dev/merge-gateways: \"true\"}}\nspec: {controllerName: tulle.dev/gateway}\n";
    let one = gateway(name, port).replace("gatewayClassName: tulle", "gatewayClassName: shared");
    format!("{class}---\n{one}")
}

#[tokio::test]
async fn gateways_of_a_class_may_share_a_process() {
    let kept = Kept::start(LASTING).await;
    kept.apply(&sharing("web", free_port())).await;
    let said = kept.world.dir.path().join("said");
    let line = until("started", || lines(&said).first().cloned()).await;
    assert!(line.contains("gateway --class shared"), "{line}");
    let dir = kept.world.dir.path().join("gateways/.class/shared");
    let token = std::fs::read_to_string(dir.join("token")).expect("a token");
    let record = kept.world.authority.check_token(&token).await;
    let record = record.expect("a good token");
    assert_eq!(
        (&*record.namespace, &*record.service_account),
        ("tulle-system", "shared")
    );
    let pid = until("its process", || kept.pid("web")).await;

    // Another one comes to it, and goes again; the process stays.
    kept.apply(&sharing("other", free_port())).await;
    let other = until("the other's", || kept.pid("other")).await;
    assert_eq!(other, pid);
    until("its address", || kept.reach("other")).await;
    kept.delete("web").await;
    until("forgotten", || kept.reach("web").is_none().then_some(())).await;
    assert_eq!(kept.children.find(&key("web")), None);
    assert_eq!((kept.pid("other"), is_alive(pid)), (Some(pid), true));
    assert_eq!(lines(&said).len(), 1);

    // One that leaves the class has a process of its own, and nobody is left for the other.
    kept.apply(&gateway("other", free_port())).await;
    until("its own", || kept.pid("other").filter(|own| *own != pid)).await;
    let ended = kept.world.dir.path().join("ended");
    until("ended", || (lines(&ended).len() == 1).then_some(())).await;
    until("its address", || {
        kept.reach("other")?.problem.is_none().then_some(())
    })
    .await;
    kept.running.end().await;
}

#[test]
fn what_is_made_for_a_gateway_has_a_name_that_a_service_may_have() {
    assert_eq!(generated_name("web", "tulle"), "web-tulle");
    let long = generated_name(&"g".repeat(63), "tulle");
    assert_eq!(long.len(), 63);
    assert_ne!(long, generated_name(&"g".repeat(63), "other"));
    let cut = generated_name(&format!("{}-{}", "g".repeat(49), "h".repeat(40)), "tulle");
    assert!(model::name::is_label(&cut), "{cut}");
}
