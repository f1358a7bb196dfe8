use super::*;

fn condition(kind: &str, status: bool, parent: Option<&str>) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: kind.to_owned(),
        message: String::new(),
        parent: parent.map(|name| ParentRef {
            group: crate::kind::GATEWAY_GROUP.to_owned(),
            kind: "Gateway".to_owned(),
            namespace: None,
            name: name.to_owned(),
            section_name: None,
            port: None,
        }),
        foreign: false,
    }
}

fn route() -> ObjectKey {
    ObjectKey::new(ObjectKind::HttpRoute, "shop", "cart")
}

fn status(conditions: Vec<Condition>) -> Status {
    Status {
        generation: Some(3),
        conditions,
        ..Status::default()
    }
}

fn rendered(status: &Status) -> Map<String, Value> {
    render(&route(), status, &Live::default())
}

#[test]
fn a_route_has_an_entry_for_each_parent_in_the_order_written() {
    let said = status(vec![
        condition("Accepted", true, Some("b")),
        condition("ResolvedRefs", false, Some("b")),
        condition("Accepted", false, Some("a")),
    ]);
    let value = Value::from(rendered(&said));
    let parents = value["parents"].as_array().expect("parents");
    assert_eq!(parents.len(), 2);
    assert_eq!(parents[0]["parentRef"]["name"], "b");
    assert_eq!(parents[0]["controllerName"], CONTROLLER);
    assert_eq!(parents[0]["conditions"][1]["status"], "False");
    assert_eq!(parents[0]["conditions"][1]["observedGeneration"], 3);
    assert_eq!(parents[1]["parentRef"]["name"], "a");
}

#[test]
fn the_time_of_transition_moves_only_when_the_status_does() {
    let first = merge(
        &Value::Null,
        rendered(&status(vec![condition("Accepted", true, Some("a"))])),
        "T1",
    );
    let time = |value: &Value| value["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(time(&first), "T1");

    let mut same = status(vec![condition("Accepted", true, Some("a"))]);
    same.generation = Some(4);
    let second = merge(&first, rendered(&same), "T2");
    assert_eq!(time(&second), "T1");
    assert_ne!(first, second, "the generation that was observed is another");

    let third = status(vec![condition("Accepted", false, Some("a"))]);
    let third = merge(&second, rendered(&third), "T3");
    assert_eq!(time(&third), "T3");
}

#[test]
fn said_again_it_is_the_same() {
    let said = status(vec![condition("Accepted", true, Some("a"))]);
    let first = merge(&Value::Null, rendered(&said), "T1");
    assert_eq!(merge(&first, rendered(&said), "T2"), first);
}

#[test]
fn entries_of_other_controllers_stay_and_our_old_ones_go() {
    let theirs = json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": []});
    let ours =
        json!({"parentRef": {"name": "gone"}, "controllerName": CONTROLLER, "conditions": []});
    let old = json!({"parents": [theirs, ours]});
    let said = status(vec![condition("Accepted", true, Some("a"))]);
    let merged = merge(&old, rendered(&said), "T1");
    let names: Vec<&Value> = list(merged.get("parents"))
        .iter()
        .map(|p| &p["parentRef"]["name"])
        .collect();
    assert_eq!(names, ["x", "a"]);
    // Also when we have nothing left to say.
    let merged = merge(&merged, rendered(&status(Vec::new())), "T2");
    assert_eq!(merged["parents"], json!([theirs]));
}

#[test]
fn no_more_entries_are_written_than_gateway_api_takes() {
    let theirs = json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other"});
    let old = json!({"parents": vec![theirs; 30]});
    let conditions = ["a", "b", "c"].map(|name| condition("Accepted", true, Some(name)));
    let merged = merge(&old, rendered(&status(conditions.into())), "T");
    assert_eq!(list(merged.get("parents")).len(), 32);
}

#[test]
fn what_is_certain_not_to_be_programmed_is_not_asked_for() {
    let key = ObjectKey::new(ObjectKind::Gateway, "shop", "web");
    let mut said = status(vec![condition("Accepted", true, None)]);
    let verdict = Verdict {
        status: "True",
        reason: "Programmed",
        message: String::new(),
    };
    let live = Live {
        programmed: Some(verdict),
        ..Live::default()
    };
    let programmed = |said: &Status| {
        let fields = Value::from(render(&key, said, &live));
        let all = list(fields.get("conditions")).to_vec();
        all.into_iter()
            .find(|c| c["type"] == "Programmed")
            .map(|c| c["status"].clone())
    };
    assert_eq!(programmed(&said), Some("True".into()));
    said.conditions.push(condition("Programmed", false, None));
    assert_eq!(programmed(&said), Some("False".into()));
}

#[test]
fn a_long_message_is_cut_between_letters() {
    let mut long = condition("Accepted", true, Some("a"));
    long.message = "é".repeat(20_000);
    let value = Value::from(rendered(&status(vec![long])));
    let message = value["parents"][0]["conditions"][0]["message"]
        .as_str()
        .expect("text");
    assert!(message.len() <= MAX_MESSAGE && message.ends_with('é'));
}
