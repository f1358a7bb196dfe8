//! The commands that look ahead (`simulate`, `diff`, `analyze`), asked of a running control plane.

use super::*;

const WORKLOAD: &str = r"
apiVersion: tulle.dev/v1alpha1
kind: Workload
metadata: {name: reviews-1, namespace: shop, labels: {app: reviews}}
spec: {address: 127.0.0.1, ports: [{name: http, port: 9080}], serviceAccount: reviews}
";

#[test]
fn a_running_configuration_is_looked_through_and_ahead_of() {
    let plane = Plane::start("ahead");
    plane.apply("shop.yaml", SHOP).success();
    let ask = || plane.cli(&["simulate", "-r", "GET http://reviews.shop/1", "-o", "json"]);
    let answer = |run: &Finished| -> Value { serde_json::from_str(&run.stdout).expect("JSON") };

    let before = ask();
    assert_eq!(before.code(), 1, "{}", before.stderr);
    assert_eq!(answer(&before)["failure"]["reason"], "no_endpoints");

    // What is there already makes no difference, though the control plane has added an address.
    let same = plane.cli(&["diff", "-f", "shop.yaml"]);
    assert_eq!(
        (same.code(), same.stdout.as_str()),
        (0, ""),
        "{}",
        same.stderr
    );

    plane.dir.write("workload.yaml", WORKLOAD);
    let more = plane.cli(&["diff", "-f", "workload.yaml"]);
    assert_eq!(more.code(), 1, "{}", more.stderr);
    has(
        &more.stdout,
        &[
            "GET http://reviews.shop/",
            "- goes to shop/reviews:80 (answered with 503 no_endpoints)",
            "+ goes to shop/reviews:80\n",
        ],
    );
    let unchanged = ask();
    assert_eq!(unchanged.code(), 1, "a comparison changes nothing");

    plane.apply("workload.yaml", WORKLOAD).success();
    let after = ask();
    assert_eq!(after.code(), 0, "{}", after.stderr);
    let after = answer(&after);
    assert_eq!(after["route"]["name"], "shop/reviews");
    assert_eq!(
        after["backends"][0]["endpoints"][0]["workload"],
        "shop/reviews-1"
    );

    let clean = plane.cli(&["analyze"]);
    assert_eq!(
        (clean.code(), clean.stdout.as_str()),
        (0, ""),
        "{}",
        clean.stderr
    );
    plane
        .apply(
            "again.yaml",
            &SHOP.replace(
                "name: reviews, namespace: shop}\nspec:\n  parentRefs",
                "name: zz, namespace: shop}\nspec:\n  parentRefs",
            ),
        )
        .success();
    let found = plane.cli(&["analyze"]);
    assert_eq!(found.code(), 1, "{}", found.stderr);
    has(
        &found.stdout,
        &["HTTPRoute shop/zz: spec.rules[0]: never gets a request: HTTPRoute shop/reviews, rule 0"],
    );
}
