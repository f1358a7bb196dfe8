use proptest::prelude::*;

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn headers(pairs: &[(&'static str, &str)]) -> Fields {
    let mut map = Fields::new();
    for (name, value) in pairs {
        map.append(name, value.as_bytes());
    }
    map
}

fn parent(value: &str) -> Option<Context> {
    Context::parse(&headers(&[("traceparent", value)]))
}

#[test]
fn a_valid_traceparent_is_read() {
    let context = parent(&format!("00-{TRACE}-{SPAN}-01")).expect("valid");
    assert_eq!(context.trace_hex(), TRACE);
    assert_eq!(context.span_hex(), SPAN);
    assert!(context.sampled);
    assert_eq!(
        context.traceparent(),
        format!("00-{TRACE}-{SPAN}-01").as_bytes()
    );
    assert!(
        !parent(&format!("00-{TRACE}-{SPAN}-02"))
            .expect("valid")
            .sampled
    );
    assert!(
        parent(&format!("00-{TRACE}-{SPAN}-ff"))
            .expect("valid")
            .sampled
    );
    // 4.3: what a later version appends is passed over.
    assert!(parent(&format!("cc-{TRACE}-{SPAN}-01")).is_some());
    assert!(parent(&format!("cc-{TRACE}-{SPAN}-01-what-ever")).is_some());
}

#[test]
fn an_invalid_traceparent_starts_a_new_trace() {
    for value in [
        String::new(),
        "00".to_owned(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("00-{TRACE}-{SPAN}-01-x"),
        format!("00-{TRACE}-{SPAN}-01-"),
        format!("00-{TRACE}-{SPAN}-0g"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("cc-{TRACE}-{SPAN}-01what"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("0-{TRACE}-{SPAN}-01"),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
    ] {
        assert_eq!(parent(&value), None, "{value}");
    }
    let twice = format!("00-{TRACE}-{SPAN}-01");
    let map = headers(&[("traceparent", &twice), ("traceparent", &twice)]);
    assert_eq!(Context::parse(&map), None);
}

#[test]
fn tracestate_is_joined_or_dropped_whole() {
    let of = |states: &[&str]| {
        let mut map = headers(&[("traceparent", &format!("00-{TRACE}-{SPAN}-01"))]);
        for state in states {
            map.append("tracestate", state.as_bytes());
        }
        let context = Context::parse(&map).expect("the parent is valid");
        context.tracestate.map(String::from)
    };
    assert_eq!(of(&["a=1", "b=2 , c=3"]), Some("a=1,b=2,c=3".to_owned()));
    assert_eq!(of(&["t61@v=x,,b=2"]), Some("t61@v=x,b=2".to_owned()));
    assert_eq!(of(&[""]), None);
    assert_eq!(of(&["A=1"]), None);
    assert_eq!(of(&["a"]), None);
    assert_eq!(of(&["a=b=c"]), None);
    let many = (0..33).map(|i| format!("k{i}=1")).collect::<Vec<_>>();
    assert_eq!(of(&[&many.join(",")]), None);
    assert!(of(&[&many[..32].join(",")]).is_some());
    assert_eq!(of(&[&format!("a={}", "x".repeat(257))]), None);
}

#[test]
fn b3_is_read_in_both_forms() {
    let single = |value: &str| Context::parse(&headers(&[("b3", value)]));
    let context = single(&format!("{TRACE}-{SPAN}-1")).expect("valid");
    assert!(context.sampled && !context.deferred);
    assert!(
        single(&format!("{TRACE}-{SPAN}-d-{SPAN}"))
            .expect("valid")
            .sampled
    );
    assert!(!single(&format!("{TRACE}-{SPAN}-0")).expect("valid").sampled);
    assert!(single(&format!("{TRACE}-{SPAN}")).expect("valid").deferred);
    let short = single(&format!("{SPAN}-{SPAN}-1")).expect("valid");
    assert_eq!(short.trace_hex(), format!("{}{SPAN}", "0".repeat(16)));
    for bad in [
        "0",
        "",
        "x-y",
        &format!("{TRACE}-{SPAN}-2"),
        &format!("{TRACE}-{SPAN}-1-z"),
    ] {
        assert_eq!(single(bad), None, "{bad}");
    }
    let multiple = |sampled: &str| {
        let map = headers(&[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-sampled", sampled),
        ]);
        Context::parse(&map).expect("valid")
    };
    assert!(multiple("1").sampled);
    assert!(!multiple("0").sampled && !multiple("0").deferred);
    assert!(multiple("?").deferred);
}

#[test]
fn injection_replaces_and_keeps_b3_only_where_it_was() {
    let mut map = headers(&[
        ("traceparent", "junk"),
        ("tracestate", "x=1"),
        ("b3", "old"),
        ("x-b3-traceid", "old"),
        ("x-b3-parentspanid", "old"),
    ]);
    let mut context = Context::root(true);
    context.inject(&mut map);
    assert_eq!(Context::parse(&map), Some(context.clone()));
    assert!(!map.contains("tracestate"));
    assert!(!map.contains("x-b3-parentspanid"));
    assert_eq!(b3_single(&map), Some(context.clone()));
    assert_eq!(b3_multiple(&map), Some(context.clone()));

    let mut map = Fields::new();
    context.tracestate = Some("a=1".into());
    context.inject(&mut map);
    assert_eq!(map.len(), 2);
    assert_eq!(Context::parse(&map), Some(context));
}

#[test]
fn a_caller_decides_for_those_below_it() {
    let caller = Context::root(true);
    let mut reservoir = Reservoir::default();
    let started = Sampler::new(0, 0).start(Some(&caller), &mut reservoir, Instant::now());
    assert!(started.sampled);
    assert_eq!(started.trace_id, caller.trace_id);
    assert_ne!(started.span_id, caller.span_id);
    let all = Sampler::new(10_000, 0);
    assert!(!starts(all, Some(&Context::root(false))));
    let deferred = Context {
        deferred: true,
        ..Context::root(false)
    };
    assert!(starts(all, Some(&deferred)));
}

/// Whether a trace is recorded by a thread that has recorded none yet.
fn starts(sampler: Sampler, caller: Option<&Context>) -> bool {
    let mut reservoir = Reservoir::default();
    sampler
        .start(caller, &mut reservoir, Instant::now())
        .sampled
}

#[test]
fn the_first_traces_of_each_second_are_recorded() {
    let (sampler, mut reservoir, begin) =
        (Sampler::new(0, 3), Reservoir::default(), Instant::now());
    let mut at = |millis| {
        let now = begin + Duration::from_millis(millis);
        sampler.start(None, &mut reservoir, now).sampled
    };
    assert_eq!(
        [0, 1, 2, 3, 999].map(&mut at),
        [true, true, true, false, false]
    );
    assert_eq!(
        [1000, 1900, 1950, 1999].map(&mut at),
        [true, true, true, false]
    );
    // What was not used is not saved up.
    assert_eq!(
        [9000, 9001, 9002, 9003].map(&mut at),
        [true, true, true, false]
    );
}

#[test]
fn the_sampler_keeps_its_share() {
    let share = |hundredths| {
        let sampler = Sampler::new(hundredths, 0);
        (0..20_000).filter(|_| starts(sampler, None)).count()
    };
    assert_eq!(share(0), 0);
    assert_eq!(share(10_000), 20_000);
    assert_eq!(share(u32::MAX), 20_000);
    let tenth = share(1000);
    assert!((1700..2300).contains(&tenth), "{tenth}");
}

proptest! {
    #[test]
    fn any_header_is_read_without_panic(
        values in proptest::collection::vec(("traceparent|tracestate|b3|x-b3-traceid|x-b3-spanid|x-b3-sampled|x-b3-flags", proptest::collection::vec(any::<u8>(), 0..80)), 0..8)
    ) {
        let mut map = Fields::new();
        for (name, value) in &values {
            map.append(name, value);
        }
        let _ = Context::parse(&map);
    }

    #[test]
    fn almost_valid_values_are_read_without_panic(value in "[0-9a-fx]{0,3}-[0-9a-fA-F]{0,34}-[0-9a-f]{0,18}(-[0-9a-f]{0,3}){0,2}") {
        for name in ["traceparent", "b3"] {
            if let Some(context) = Context::parse(&headers(&[(name, &value)])) {
                prop_assert_ne!(context.trace_id, [0; 16]);
                prop_assert_ne!(context.span_id, [0; 8]);
            }
        }
    }

    #[test]
    fn what_is_injected_is_read_back(trace in any::<[u8; 16]>(), span in any::<[u8; 8]>(), sampled: bool) {
        prop_assume!(trace != [0; 16] && span != [0; 8]);
        let context = Context { trace_id: trace, span_id: span, sampled, deferred: false, tracestate: None };
        let mut map = Fields::new();
        context.inject(&mut map);
        prop_assert_eq!(Context::parse(&map), Some(context));
    }
}
