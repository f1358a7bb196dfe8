//! What is said equals what is decided: for random routes and requests the rule that a simulation
//! names is the one that the proxy's table picks, and a configuration does not differ from itself.

use std::sync::Arc;

use config::Object;
use config::translate::{Change, Defaults, Translator};
use explain::{Caller, Request, World};
use model::resource::Resource;
use policy::route::{RequestView, RouteTable};
use proptest::prelude::*;
use serde_json::{Value, json};

fn any_match() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        "(/[ab]){1,3}".prop_map(|p| json!({"type": "Exact", "value": p})),
        "(/[ab]){1,2}".prop_map(|p| json!({"type": "PathPrefix", "value": p})),
        Just(json!({"type": "PathPrefix", "value": "/"})),
        Just(json!({"type": "RegularExpression", "value": "/a.*"})),
    ];
    let header = prop::option::of("[12]");
    let query = prop::option::of("[12]");
    let method = prop::option::of(prop_oneof![Just("GET"), Just("PUT")]);
    (path, header, query, method).prop_map(|(path, header, query, method)| {
        let mut condition = json!({ "path": path });
        if let Some(value) = header {
            condition["headers"] = json!([{"name": "x", "value": value}]);
        }
        if let Some(value) = query {
            condition["queryParams"] = json!([{"name": "q", "value": value}]);
        }
        if let Some(method) = method {
            condition["method"] = json!(method);
        }
        condition
    })
}

fn any_route(name: &'static str) -> impl Strategy<Value = Value> {
    let rules = prop::collection::vec(prop::collection::vec(any_match(), 1..4), 1..5);
    rules.prop_map(move |rules| {
        let rule = |matches: &Vec<Value>| json!({"matches": matches, "backendRefs": [{"name": "s", "port": 80}]});
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "s"}],
                "rules": rules.iter().map(rule).collect::<Vec<_>>(),
            },
        })
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"ports": [{"port": 80, "appProtocol": "http"}]},
    })
}

fn objects(all: Vec<Value>) -> Vec<Arc<Object>> {
    let read = |json| Arc::new(Object::from_json("", json).expect("valid"));
    all.into_iter().map(read).collect()
}

fn table(objects: &[Arc<Object>]) -> RouteTable {
    let mut translator = Translator::new(Defaults::default());
    let changes = objects.iter().cloned().map(Change::Put).collect();
    let outcome = translator.apply(changes);
    let resources = outcome.resources.into_iter().filter_map(|(_, r)| r);
    let routes: Vec<_> = resources
        .filter_map(|r| match r {
            Resource::Route(route) => Some(Arc::new(route)),
            _ => None,
        })
        .collect();
    RouteTable::compile(&routes, 80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_simulation_names_the_rule_that_decides(
        a in any_route("a"),
        b in any_route("b"),
        lines in prop::collection::vec(("GET|PUT", "(/[ab]){1,4}/?(\\?q=[123])?", prop::option::of("[123]")), 1..12),
    ) {
        let objects = objects(vec![service(), a, b]);
        let table = table(&objects);
        let world = World::new(objects, Defaults::default());
        for (method, target, header) in lines {
            let headers: Vec<String> = header.iter().map(|v| format!("x: {v}")).collect();
            let request = Request::parse(&format!("{method} http://s.shop{target}"), &headers)
                .expect("valid");
            let view = RequestView {
                method: &request.method,
                path: request.path(),
                query: request.query(),
                authority: &request.authority,
                headers: &request.headers,
            };
            let decided = table.decide(&view).map(|d| {
                let at = d.rule.matches.iter().position(|m| std::ptr::eq(m, d.matched));
                (d.route.name.to_string(), d.rule_index, at)
            });
            let caller = Caller::Somebody { namespace: "shop".to_owned() };
            let said = explain::simulate(&world, &request, &caller, None);
            let named = said.route.as_ref().map(|r| (r.name.clone(), r.rule_index, r.match_index));
            prop_assert_eq!(&named, &decided, "{}", request);
            // Every other match is accounted for.
            let matches: usize = table.routes().iter().flat_map(|r| &r.rules).map(|r| r.matches.len()).sum();
            prop_assert_eq!(said.not_taken.len() + usize::from(decided.is_some()), matches);
        }
    }

    #[test]
    fn a_label_makes_no_difference(a in any_route("a")) {
        let mut b = a.clone();
        b["metadata"]["labels"] = json!({"team": "shop"});
        let old = World::new(objects(vec![service(), a]), Defaults::default());
        let new = World::new(objects(vec![service(), b]), Defaults::default());
        let changes = explain::diff(&old, &new);
        prop_assert!(changes.is_empty() && changes.tried > 0, "{:?}", changes);
        prop_assert_eq!(changes.without_effect.len(), 1);
    }

    #[test]
    fn a_rule_that_is_taken_out_and_was_in_use_makes_a_difference(
        a in any_route("a"),
        line in ("GET|PUT", "(/[ab]){1,3}"),
    ) {
        let mut b = a.clone();
        b["spec"]["rules"] = json!([{"matches": [{"path": {"type": "Exact", "value": "/none"}}]}]);
        let old = World::new(objects(vec![service(), a]), Defaults::default());
        let new = World::new(objects(vec![service(), b]), Defaults::default());
        let request = Request::parse(&format!("{} http://s.shop{}", line.0, line.1), &[]).expect("valid");
        let caller = Caller::Somebody { namespace: "shop".to_owned() };
        if explain::simulate(&old, &request, &caller, None).route.is_some() {
            prop_assert!(!explain::diff(&old, &new).is_empty());
        }
    }
}
