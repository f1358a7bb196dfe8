//! Gateways as a cluster knows them: addresses that somebody gives to their Services, and pods whose
//! certificate has run out.

use serde_json::{Value, json};
use testkit::process::Process;

use super::way::Relay;
use super::world::{SOON, World};

/// Gives the Gateway's Service an address, as a load balancer's controller would.
fn assign(world: &World, ingress: &Value) {
    let service = format!("web-{}", world.namespace);
    testkit::wait_for("the Gateway's Service", SOON, || {
        world.find("service", &service)
    });
    let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
    let mut arguments = vec!["patch", "service", &service, "-n", &world.namespace];
    arguments.extend(["--subresource=status", "--type=merge", "-p", &patch]);
    world.run_kubectl(&arguments);
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn what_a_load_balancer_assigns_stands_in_the_status() {
    let mut world = World::new("balancer");
    let ns = world.namespace.clone();
    // Its pods are of no interest here.
    world.apply(&format!(
        "apiVersion: v1\nkind: ResourceQuota\nmetadata: {{name: no-pods, namespace: {ns}}}\nspec: {{hard: {{pods: \"0\"}}}}\n"
    ));
    let data = world.dir.path().to_owned();
    let mut more = vec![
        "--gateways",
        "spawn",
        "--gateway-image",
        "test.local/none:v1",
    ];
    more.extend(["--gateway-service", "LoadBalancer"]);
    world.control = Some(world.control_in(&data, &more));

    let told = |addresses: Value| move |o: &Value| o["status"]["addresses"] == addresses;
    assign(&world, &json!([{"ip": "192.0.2.7"}, {"ip": "2001:db8::7"}]));
    let both = json!([
        {"type": "IPAddress", "value": "192.0.2.7"},
        {"type": "IPAddress", "value": "2001:db8::7"},
    ]);
    world.says("its addresses", "gateway", "web", told(both));
    assign(&world, &json!([{"hostname": "lb.example"}]));
    let name = json!([{"type": "Hostname", "value": "lb.example"}]);
    world.says("its name", "gateway", "web", told(name));
}

#[test]
#[ignore = "needs a cluster: make kubernetes-e2e"]
fn a_gateway_whose_certificate_ran_out_earns_another_by_its_token() {
    let mut world = World::new("expiry");
    let ns = world.namespace.clone();
    world.run_kubectl(&["create", "serviceaccount", "web", "-n", &ns]);
    let mut arguments = vec!["create", "token", "web", "-n", &ns];
    arguments.extend(["--audience=tulle", "--duration=10m"]);
    let token = world.dir.write("token", world.run_kubectl(&arguments));
    world.start_control();
    let mut bundle = world.tulle(&["cert", "bundle"]);
    let roots = Process::run("bundle", &mut bundle, world.dir.path(), SOON).success();
    let roots = world.dir.write("roots.pem", roots);

    let relay = Relay::to(World::xds_of(world.dir.path()));
    let (token, roots) = (token.to_str().unwrap(), roots.to_str().unwrap());
    let mut more = vec!["--token-file", token, "--trust-file", roots];
    more.extend(["--certificate-ttl", "6s"]);
    world.spawn_gateway(relay.addr, &more);
    world.serves("first");

    // Away for longer than the certificate is good.
    world.control.take().unwrap().kill();
    relay.cut();
    let gateway = world.gateway.as_mut().unwrap();
    gateway.wait_stderr("left=0ns", SOON);
    let renewals = |text: &str| text.matches("certificate renewed").count();
    let before = renewals(&gateway.stderr());
    world.serves("first");
    world.start_control();
    relay.turn(World::xds_of(world.dir.path()));
    relay.open();
    world.apply(&world.route("second"));
    world.serves("second");
    let gateway = world.gateway.as_ref().unwrap();
    assert!(renewals(&gateway.stderr()) > before);
}
