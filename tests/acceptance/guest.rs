//! The guest's script run for real, on this host, with a file for its console.

use std::time::Duration;

use bakehouse::acceptance::{Answer, Script, Verdict, find_answer};
use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;
use bakehouse::recipe::Check;

use crate::gate;

/// Runs the script until its answer is on the console; the answer and the console.
async fn run(checks: serde_json::Value, deadline: u64) -> (Answer, String) {
    let checks: Vec<Check> = serde_json::from_value(checks).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let console = dir.path().join("console");
    let nonce = "0123456789abcdef";
    let script = Script { checks: &checks, nonce, deadline, console: Some(console.to_str().unwrap()) };
    let file = dir.path().join("part 001");
    std::fs::write(&file, script.text().unwrap()).unwrap();
    let stop = Stop::never();
    let running = {
        let stop = stop.clone();
        let command = Cmd::new("sh").arg(&file).arg("run").timeout(Duration::from_secs(100));
        tokio::spawn(async move { command.run(&stop).await })
    };
    let (answer, text) = loop {
        let text = std::fs::read(&console).unwrap_or_default();
        if let Some(answer) = find_answer(&text, nonce) {
            break (answer, String::from_utf8_lossy(&text).into_owned());
        }
        assert!(!running.is_finished(), "it ended: {:?}", running.await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    stop.request(libc::SIGTERM);
    // It repeats its answer until it is ended: that it was ended is no failure.
    let _ = running.await;
    (answer, text)
}

fn soon() -> u64 {
    uptime() + 60
}

fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap();
    text.split('.').next().unwrap().parse().unwrap()
}

fn verdict(answer: &Answer, index: usize) -> (Verdict, &str) {
    let judged = answer.checks.iter().find(|judged| judged.index == index).unwrap();
    (judged.verdict, &judged.message)
}

#[tokio::test]
async fn commands_and_files_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a file's name");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let path = path.to_str().unwrap();
    let checks = serde_json::json!([
        {"command": {"run": "echo it\\'s \"$((1 + 1))\"", "stdout": " it's 2 "}},
        {"command": {"run": "echo said; echo complained >&2; exit 3"}},
        {"command": {"run": "exit 3", "exit": 3}},
        {"command": {"run": "printf 'one\ntwo'", "contains": "e\nt"}},
        {"command": {"run": "echo this", "stdout": "that"}},
        {"command": {"run": "yes | head -c 300000", "contains": "n"}},
        {"command": {"run": "echo `"}},
        {"file": {"path": path, "contains": "one\ntwo", "mode": "0644"}},
        {"file": {"path": path, "mode": "0600"}},
        {"file": {"path": path, "contains": "o.e"}},
        {"file": {"path": "/nowhere"}},
        {"file": {"path": "/nowhere", "exists": false}},
        {"file": {"path": "relative"}},
        {"service": {"name": "a b", "enabled": true}},
    ]);
    let (answer, console) = run(checks, soon()).await;
    assert_eq!(answer.checks.len(), 14);
    for index in [0, 2, 3, 7, 11] {
        assert_eq!(verdict(&answer, index), (Verdict::Passed, ""), "{index}");
    }
    let failed = |index: usize, part: &str| {
        let (verdict, message) = verdict(&answer, index);
        assert_eq!(verdict, Verdict::Failed, "{index}");
        assert!(message.contains(part), "{index}: {message}");
        assert!(message.len() <= 2048 + 100, "{index}: {}", message.len());
    };
    failed(1, "exit code 3, not 0; said\ncomplained");
    failed(4, "standard output is not `that` but: this");
    failed(5, "");
    failed(6, "exit code 2, not 0");
    failed(8, "has mode 644, not 600");
    failed(9, "does not contain");
    failed(10, "is not there");
    failed(12, "must begin with /");
    failed(13, "is not the name of a unit");
    assert!(console.contains("@bakehouse-1 0123456789abcdef started@"), "{console}");
}

#[tokio::test]
async fn packages_are_judged_by_the_systems_own_dpkg() {
    if !gate::has(&["dpkg-query", "dpkg"]) {
        return;
    }
    let checks = serde_json::json!([
        {"package": {"name": "dpkg", "version": ">=1"}},
        {"package": {"name": "dpkg", "version": "<1"}},
        {"package": {"name": "no-such-package"}},
        {"package": {"name": "no-such-package", "installed": false}},
        {"package": {"name": "dpkg", "installed": false}},
        {"package": {"name": "d*"}},
        {"package": {"name": "dpkg", "version": "1"}},
    ]);
    let (answer, _) = run(checks, soon()).await;
    assert_eq!(verdict(&answer, 0), (Verdict::Passed, ""));
    assert_eq!(verdict(&answer, 3), (Verdict::Passed, ""));
    for (index, part) in [
        (1, "has version"),
        (2, "is not installed"),
        (4, "is installed, version"),
        (5, "is not the name of a package"),
        (6, "is not a demand"),
    ] {
        let (verdict, message) = verdict(&answer, index);
        assert_eq!(verdict, Verdict::Failed, "{index}");
        assert!(message.contains(part), "{index}: {message}");
    }
}

#[tokio::test]
async fn ports_are_seen_and_waited_for_until_the_deadline() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        other.local_addr().unwrap().port()
    };
    let checks = serde_json::json!([{"port": {"tcp": open}}, {"port": {"tcp": closed}}]);
    // The deadline is over before it begins: what is not there is not waited for.
    let (answer, _) = run(checks, uptime()).await;
    assert_eq!(verdict(&answer, 0), (Verdict::Passed, ""));
    assert_eq!(verdict(&answer, 1), (Verdict::Failed, "nothing listens"));
}

#[tokio::test]
async fn a_check_that_hangs_ends_with_the_time() {
    let checks = serde_json::json!([
        {"command": {"run": "echo before; sleep 1000"}},
        {"command": {"run": "true"}},
    ]);
    let (answer, _) = run(checks, uptime()).await;
    assert_eq!(verdict(&answer, 0), (Verdict::Failed, "did not end in time"));
    assert_eq!(verdict(&answer, 1), (Verdict::Passed, ""));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_and_still_one_frame() {
    // Output that does not pack: 60 failures of 2 KiB would be far beyond the frame.
    let noisy = serde_json::json!({"command": {"run": "head -c 1500 /dev/urandom | base64; exit 1"}});
    let checks = serde_json::Value::Array(vec![noisy; 60]);
    let (answer, console) = run(checks, soon()).await;
    assert_eq!(answer.checks.len(), 60);
    assert!(answer.checks.iter().all(|judged| judged.verdict == Verdict::Failed));
    let frame = console.lines().find(|line| line.ends_with("==@") || line.len() > 1000).unwrap();
    assert!(frame.len() < 25 * 1024, "{}", frame.len());
}
