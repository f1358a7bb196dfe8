use super::*;
use crate::socket::{ListenOptions, listen};

const CHILD: &str = "inherit::tests::child";

/// Not a test of its own: what the processes started below run.
#[test]
#[ignore = "runs as the child of the tests beside it"]
fn child() {
    match std::env::var("TULLE_TEST_EXPECT").as_deref() {
        Ok("all") => {
            let taken = take_all().unwrap();
            let port = taken.tcp["outbound"].local_addr().unwrap().port();
            assert_eq!(port.to_string(), std::env::var("TULLE_TEST_PORT").unwrap());
            assert!(
                taken.unix["admin"]
                    .local_addr()
                    .unwrap()
                    .as_pathname()
                    .is_none()
            );
            assert!(taken.udp["dns"].local_addr().unwrap().ip().is_loopback());
            for fd in [taken.tcp["outbound"].as_fd(), taken.udp["dns"].as_fd()] {
                let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
                assert!(
                    flags.contains(FdFlag::FD_CLOEXEC),
                    "grandchildren must not get it"
                );
            }
            assert!(matches!(take_all(), Err(InheritError::Taken)));
        }
        Ok("refused") => {
            let e = take().expect_err("not a listening socket");
            assert!(e.to_string().contains(VARIABLE), "{e}");
        }
        _ => {}
    }
}

fn child_command(expect: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([CHILD, "--exact", "--ignored"])
        .env("TULLE_TEST_EXPECT", expect);
    command
}

#[track_caller]
fn succeeds(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
fn a_child_gets_listeners_of_each_kind_by_name() {
    let tcp = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(
            format!("tulle-inherit-{}", std::process::id()),
        )
        .unwrap();
    let unix = UnixListener::bind_addr(&address).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut command = child_command("all");
    command.env(
        "TULLE_TEST_PORT",
        tcp.local_addr().unwrap().port().to_string(),
    );
    let sockets = [
        ("outbound", tcp.as_fd()),
        ("admin", unix.as_fd()),
        ("dns", udp.as_fd()),
    ];
    pass_fds(&mut command, &sockets).unwrap();
    drop(tcp); // the command keeps a duplicate
    succeeds(command);
}

#[test]
fn what_does_not_listen_is_refused() {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut command = child_command("refused");
    pass(&mut command, &[("outbound", &stream)]).unwrap();
    succeeds(command);

    let file = std::fs::File::open("/dev/null").unwrap();
    let mut command = child_command("refused");
    pass(&mut command, &[("outbound", &file)]).unwrap();
    succeeds(command);

    let mut command = child_command("refused");
    command.env(VARIABLE, "outbound=987");
    succeeds(command);
}

#[test]
fn texts_that_are_no_list_of_descriptors_are_refused() {
    for text in [
        "a",
        "a=",
        "=3",
        "a=b",
        "a=1",
        "a=-1",
        "a=3,a=4",
        "a=3,b=3",
        "a=99999999999",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert_eq!(parse("").unwrap(), []);
    let two = parse("a=3,b=44,").unwrap();
    assert_eq!(two, [("a".to_owned(), 3), ("b".to_owned(), 44)]);
}

#[test]
fn a_name_that_would_break_the_list_is_refused() {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    for name in ["", "a=b", "a,b"] {
        assert!(
            pass(&mut Command::new("true"), &[(name, &listener)]).is_err(),
            "{name}"
        );
    }
}
