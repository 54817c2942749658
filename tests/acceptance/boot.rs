//! The boot test against instances whose end, console and faults are chosen. Where one answers, it runs the user data
//! that it was given.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bakehouse::acceptance::{
    AcceptanceError, Boot, BootReport, BootSpec, BootStage, LaunchOptions, Stage, Status, Until,
};
use bakehouse::cloud::{
    Cloud, CloudError, Clouds, ErrorKind, Image, Instance, InstanceId, InstanceQuery, InstanceState,
    Instances, NewInstance, Place, Result, Token,
};
use bakehouse::host::clock;
use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;
use bakehouse::ledger::{Header, Ledger, Left, State};
use bakehouse::recipe::{BootTest, Check, Span};
use bakehouse::report::Reporter;
use bakehouse::stage::{Answer, Claims, StageToken, TokenError, Wait};

use crate::stored;

/// How an instance behaves.
#[derive(Clone, Copy, PartialEq)]
enum Guest {
    /// Runs its user data.
    Answers,
    /// Writes this and nothing more.
    Writes(&'static str),
    /// Writes this and is gone.
    Ends(&'static str),
}

struct Staged {
    place: Place,
    image: Image,
    guest: Guest,
    folder: tempfile::TempDir,
    /// What `terminate` says.
    stuck: bool,
    stop: Stop,
    terminated: Mutex<u32>,
    launched: Mutex<Vec<(NewInstance, Token)>>,
}

impl Staged {
    fn id() -> InstanceId {
        InstanceId::parse("i-0123456789abcdef0").unwrap()
    }

    fn error(&self, kind: ErrorKind) -> CloudError {
        CloudError::new(kind, "Test", &self.place, "staged")
    }
}

#[async_trait]
impl Instances for Staged {
    async fn launch(&self, new: &NewInstance, token: &Token) -> Result<InstanceId> {
        self.launched.lock().unwrap().push((new.clone(), token.clone()));
        if self.guest == Guest::Answers {
            let mut text = String::new();
            flate2::read::GzDecoder::new(new.user_data.as_slice()).read_to_string(&mut text).unwrap();
            let console = self.folder.path().join("console");
            let text = text.replace("consoles=''", &format!("consoles='{}'", console.display()));
            // A machine that began just now.
            let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
            let now: u64 = uptime.split('.').next().unwrap().parse().unwrap();
            let given = text.split("deadline='").nth(1).unwrap().split('\'').next().unwrap();
            let deadline = format!("deadline='{}'", now + given.parse::<u64>().unwrap());
            let text = text.replace(&format!("deadline='{given}'"), &deadline);
            let file = self.folder.path().join("script");
            std::fs::write(&file, text).unwrap();
            let stop = self.stop.clone();
            let command = Cmd::new("sh").arg(&file).arg("run");
            tokio::spawn(async move { command.run(&stop).await });
        }
        Ok(Self::id())
    }

    async fn find(&self, _query: &InstanceQuery) -> Result<Vec<Instance>> {
        Ok(vec![self.describe(&Self::id()).await?])
    }

    async fn describe(&self, id: &InstanceId) -> Result<Instance> {
        Ok(Instance {
            id: id.clone(),
            image: self.image.id.clone(),
            state: match self.guest {
                Guest::Ends(_) => InstanceState::Terminated,
                _ if !self.stuck && *self.terminated.lock().unwrap() > 0 => InstanceState::Terminated,
                _ => InstanceState::Running,
            },
            ended_by_cloud: false,
            reason: Some("a reason".to_owned()),
            tags: self.launched.lock().unwrap().last().map(|(new, _)| new.tags.clone()).unwrap_or_default(),
        })
    }

    async fn stop(&self, _id: &InstanceId) -> Result<()> {
        panic!("a boot test stops nothing")
    }

    async fn console(&self, _id: &InstanceId) -> Result<Vec<u8>> {
        match self.guest {
            Guest::Answers => match std::fs::read(self.folder.path().join("console")) {
                Ok(text) => Ok(text),
                // As EC2 answers for a new instance.
                Err(_) => Err(self.error(ErrorKind::NotYet)),
            },
            Guest::Writes(text) | Guest::Ends(text) => Ok(text.as_bytes().to_vec()),
        }
    }

    async fn terminate(&self, _id: &InstanceId) -> Result<()> {
        *self.terminated.lock().unwrap() += 1;
        self.stop.request(libc::SIGTERM);
        if self.stuck {
            return Err(self.error(ErrorKind::Denied));
        }
        Ok(())
    }
}

fn checks() -> Vec<Check> {
    let checks = serde_json::json!([
        {"command": {"run": "echo fine", "stdout": "fine"}},
        {"command": {"run": "echo broken; false"}},
    ]);
    serde_json::from_value(checks).unwrap()
}

fn spec(within: u64) -> BootSpec {
    BootSpec {
        checks: checks(),
        boot: BootTest { within: Some(Span::from_secs(within)), console: None },
        bake: "bake".to_owned(),
        family: "web".to_owned(),
    }
}

/// A cloud with one image, whose instances behave as told.
struct Scene {
    cloud: Cloud,
    staged: Arc<Staged>,
    reporter: Reporter,
    store: tempfile::TempDir,
}

impl Clouds for Scene {
    fn name(&self) -> String {
        "staged".to_owned()
    }

    fn home(&self) -> Place {
        self.cloud.place.clone()
    }

    fn at(&self, _place: &Place) -> Result<Cloud> {
        Ok(self.cloud.clone())
    }

    fn settles_within(&self) -> Duration {
        Duration::ZERO
    }
}

impl Scene {
    async fn new(guest: Guest, stuck: bool) -> Self {
        let store = tempfile::tempdir().unwrap();
        let (mut cloud, place): (Cloud, Place) = stored::cloud(store.path());
        let image = stored::image(&cloud, [0_u8; 512].as_slice(), 1, None).await;
        let staged = Arc::new(Staged {
            place,
            image,
            guest,
            folder: tempfile::tempdir().unwrap(),
            stuck,
            stop: Stop::never(),
            terminated: Mutex::new(0),
            launched: Mutex::new(Vec::new()),
        });
        cloud.instances = staged.clone();
        Self { cloud, staged, reporter: Reporter::silent(), store }
    }

    /// The ledger of a process.
    fn ledger(&self, name: &str) -> Ledger {
        let header = Header::new("staged", "test", "bake", clock::wall());
        Ledger::begin(&self.store.path().join(name), header).unwrap()
    }

    fn stage<'a>(&'a self, spec: &'a BootSpec, ledger: &'a Ledger) -> BootStage<'a> {
        let (cloud, image, reporter) = (&self.cloud, &self.staged.image, &self.reporter);
        BootStage { clouds: self, cloud, image, spec, ledger, reporter }
    }
}

/// A process that looks once, and knows nothing but the token.
async fn look(stage: BootStage<'_>, token: &StageToken) -> Answer<BootReport> {
    let mut boot = stage.resume(token).unwrap();
    stage.go_on(&mut boot, Until::OneLook, &Stop::never(), |_| ()).await.unwrap()
}

fn waits(answer: Answer<BootReport>) -> Wait {
    let Answer::Wait(wait) = answer else { panic!("{answer:?}") };
    wait
}

fn is_done(answer: Answer<BootReport>) -> BootReport {
    let Answer::Done(report) = answer else { panic!("{answer:?}") };
    report
}

struct Run {
    result: std::result::Result<BootReport, AcceptanceError>,
    staged: Arc<Staged>,
}

async fn run(guest: Guest, stuck: bool, cloud_init: bool, spec: &BootSpec, stop: &Stop) -> Run {
    let scene = Scene::new(guest, stuck).await;
    let ledger = scene.ledger("ledger");
    let stage = scene.stage(spec, &ledger);
    let result = match stage.begin(LaunchOptions::default(), cloud_init, stop).await {
        Ok(mut boot) => stage.go_on(&mut boot, Until::Done, stop, |_| ()).await.map(is_done),
        Err(error) => Err(error),
    };
    // What could not be ended is what the ledger still has.
    assert_eq!(ledger.is_settled(), !stuck || scene.staged.launched.lock().unwrap().is_empty());
    Run { result, staged: scene.staged.clone() }
}

fn terminated(run: &Run) -> u32 {
    *run.staged.terminated.lock().unwrap()
}

#[tokio::test]
async fn an_answer_becomes_outcomes_and_the_instance_is_ended() {
    let run = run(Guest::Answers, false, true, &spec(100), &Stop::never()).await;
    assert_eq!(terminated(&run), 1);
    let report = run.result.unwrap();
    let names: Vec<_> = report.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    assert_eq!(names, ["boot", "command echo fine", "command echo broken; false"]);
    assert_eq!(report.outcomes[0].status, Status::Passed);
    assert_eq!(report.outcomes[1].status, Status::Passed);
    assert_eq!(report.outcomes[2].status, Status::Failed("exit code 1, not 0; broken".to_owned()));
    assert!(!report.passed());
    assert_eq!((report.stage, report.left), (None, Left::Nothing));
    assert!(!report.console.contains("@bakehouse-1"), "{}", report.console);
    let launched = run.staged.launched.lock().unwrap();
    let new = &launched[0].0;
    assert_eq!(new.lifetime_seconds, 220);
    assert!(new.user_data.starts_with(&[0x1f, 0x8b]));
    assert_eq!(new.tags["bakehouse:bake"], "bake");
    assert!(new.tags.contains_key("bakehouse:expires"));
}

#[tokio::test]
async fn an_instance_that_cannot_be_ended_is_reported_and_the_verdict_stands() {
    let run = run(Guest::Answers, true, true, &spec(100), &Stop::never()).await;
    let report = run.result.unwrap();
    assert_eq!(report.outcomes[1].status, Status::Passed);
    let left = report.left.to_string();
    assert!(left.contains("i-0123456789abcdef0") && left.contains("staged"), "{left}");
}

#[tokio::test]
async fn a_boot_that_gets_nowhere_says_how_far_it_came() {
    let text = "[    0.0] Linux version 6\r\nALERT!  UUID=12 does not exist.  Dropping to a shell!\r\n";
    let run = run(Guest::Writes(text), false, true, &spec(1), &Stop::never()).await;
    assert_eq!(terminated(&run), 1);
    let report = run.result.unwrap();
    assert!(matches!(report.stage, Some(Stage::Initramfs(_))));
    let Status::Failed(reason) = &report.outcomes[0].status else {
        panic!("{:?}", report.outcomes);
    };
    assert!(reason.starts_with("no answer within 1 s") && reason.contains("UUID=12"), "{reason}");
    assert!(report.console.contains("ALERT!"));
    assert!(matches!(report.outcomes[1].status, Status::NotJudged(_)));
}

#[tokio::test]
async fn an_instance_that_ends_is_not_waited_for() {
    let run =
        run(Guest::Ends("Kernel panic - not syncing: no init\r\n"), false, true, &spec(1000), &Stop::never())
            .await;
    let report = run.result.unwrap();
    let Status::Failed(reason) = &report.outcomes[0].status else {
        panic!("{:?}", report.outcomes);
    };
    assert!(reason.contains("(a reason)") && reason.contains("no init"), "{reason}");
}

#[tokio::test]
async fn a_stop_ends_the_instance_too() {
    let stop = Stop::never();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        asked.request(libc::SIGTERM);
    });
    let run = run(Guest::Writes(""), true, true, &spec(1000), &stop).await;
    // Stopped before the launch where this machine is slow: then nothing was launched, and nothing is ended.
    let launched = run.staged.launched.lock().unwrap().len();
    assert_eq!(terminated(&run) as usize, launched);
    let Err(AcceptanceError::Stopped { left }) = run.result else {
        panic!("{:?}", run.result);
    };
    assert_eq!(left.is_nothing(), launched == 0);
}

#[tokio::test]
async fn without_cloud_init_the_console_alone_tells() {
    let prompt = "Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: ";
    let seen = run(Guest::Writes(prompt), false, false, &spec(100), &Stop::never()).await;
    let report = seen.result.unwrap();
    assert_eq!(report.outcomes[0].status, Status::Passed);
    assert!(matches!(&report.outcomes[1].status, Status::NotJudged(why) if why.contains("no cloud-init")));
    assert!(report.passed());
    assert!(seen.staged.launched.lock().unwrap()[0].0.user_data.is_empty());

    let mut wanted = spec(1);
    wanted.boot.console = Some("appliance ready".to_owned());
    let unseen = run(Guest::Writes(prompt), false, false, &wanted, &Stop::never()).await;
    assert!(!unseen.result.unwrap().passed());
    let seen =
        run(Guest::Writes("\x1b[1mappliance ready\x1b[0m"), false, false, &wanted, &Stop::never()).await;
    assert!(seen.result.unwrap().passed());
}

/// Every look is another process's: nothing but the token goes from one to the next.
#[tokio::test]
async fn processes_that_know_the_token_alone_come_to_the_same_end() {
    let scene = Scene::new(Guest::Answers, false).await;
    let spec = spec(100);
    let first = scene.ledger("first");
    let stage = scene.stage(&spec, &first);
    let mut boot = stage.begin(LaunchOptions::default(), true, &Stop::never()).await.unwrap();
    let mut told = Vec::new();
    let mut tell = |wait: &Wait| told.push((wait.token.clone(), first.entries()[0].state));
    let answer = stage.go_on(&mut boot, Until::OneLook, &Stop::never(), &mut tell).await;
    let mut wait = waits(answer.unwrap());
    // No token is told whose instance the ledger would still undo.
    assert_eq!(told[0], (wait.token.clone(), State::Handed));

    let second = scene.ledger("second");
    let stage = scene.stage(&spec, &second);
    let report = loop {
        tokio::time::sleep(wait.after / 10).await;
        match look(stage, &wait.token).await {
            Answer::Done(report) => break report,
            Answer::Wait(next) => {
                assert_eq!(next.token, wait.token);
                wait = next;
            }
        }
    };
    assert_eq!(*scene.staged.terminated.lock().unwrap(), 1);
    assert!(second.is_settled());
    // What the first ledger left to the token is not waited for when it is gone.
    first.unwind(&scene, clock::wall()).await;
    assert!(first.is_settled());
    // Another process had the same token: the instance is gone, and the console still says it.
    let other = is_done(look(stage, &wait.token).await);
    let found = |report: &BootReport| -> Vec<Status> {
        report.outcomes.iter().map(|outcome| outcome.status.clone()).collect()
    };
    assert_eq!(found(&other), found(&report));
    assert_eq!(scene.staged.launched.lock().unwrap().len(), 1);
}

/// Launched and looked at once, with the ledger and what the next process needs.
async fn waiting(scene: &Scene, spec: &BootSpec) -> (Ledger, Wait) {
    let ledger = scene.ledger("first");
    let stage = scene.stage(spec, &ledger);
    let mut boot = stage.begin(LaunchOptions::default(), true, &Stop::never()).await.unwrap();
    let wait = waits(stage.go_on(&mut boot, Until::OneLook, &Stop::never(), |_| ()).await.unwrap());
    (ledger, wait)
}

#[tokio::test]
async fn what_waits_is_left_alone_until_its_token_is_over() {
    let scene = Scene::new(Guest::Writes(""), false).await;
    let spec = spec(1000);
    let (ledger, wait) = waiting(&scene, &spec).await;
    ledger.unwind(&scene, clock::wall()).await;
    assert_eq!(*scene.staged.terminated.lock().unwrap(), 0);
    let stage = scene.stage(&spec, &ledger);
    assert_eq!(waits(look(stage, &wait.token).await).percent, 0);
    let later = clock::wall() + jiff::SignedDuration::from_hours(1);
    ledger.unwind(&scene, later).await;
    assert_eq!(*scene.staged.terminated.lock().unwrap(), 1);
    // Gone when the test goes on: told, and not waited for.
    let report = is_done(look(stage, &wait.token).await);
    assert!(matches!(&report.outcomes[0].status, Status::Failed(why) if why.contains("(a reason)")));
}

#[tokio::test]
async fn a_stop_ends_what_another_process_launched() {
    let scene = Scene::new(Guest::Writes(""), false).await;
    let spec = spec(1000);
    let (_, wait) = waiting(&scene, &spec).await;
    let second = scene.ledger("second");
    let stage = scene.stage(&spec, &second);
    let stop = Stop::never();
    stop.request(libc::SIGTERM);
    let mut boot = stage.resume(&wait.token).unwrap();
    let error = stage.go_on(&mut boot, Until::Done, &stop, |_| ()).await.unwrap_err();
    assert!(matches!(error, AcceptanceError::Stopped { left: Left::Nothing }), "{error}");
    assert_eq!(*scene.staged.terminated.lock().unwrap(), 1);
}

/// A token is anybody's text: nothing is done to an instance that is not the test's.
#[tokio::test]
async fn a_token_that_names_another_instance_ends_nothing() {
    let scene = Scene::new(Guest::Writes(""), false).await;
    let spec = spec(100);
    let (ledger, wait) = waiting(&scene, &spec).await;
    let stage = scene.stage(&spec, &ledger);
    let claims: Claims<serde_json::Value> = wait.token.claims("test").unwrap();
    let forged = |change: &dyn Fn(&mut Claims<serde_json::Value>)| {
        let mut claims = claims.clone();
        change(&mut claims);
        stage.resume(&StageToken::of(&claims).unwrap())
    };
    let mut boot = forged(&|claims| claims.needs["nonce"] = "another".into()).unwrap();
    let stopped = Stop::never();
    stopped.request(libc::SIGTERM);
    let error = stage.go_on(&mut boot, Until::Done, &Stop::never(), |_| ()).await.unwrap_err();
    assert!(matches!(error, AcceptanceError::NotOwn { .. }), "{error}");
    let error = stage.go_on(&mut boot, Until::Done, &stopped, |_| ()).await.unwrap_err();
    assert!(matches!(error, AcceptanceError::Stopped { left: Left::Nothing }), "{error}");
    assert_eq!(stage.end(&boot).await, Left::Nothing);
    assert_eq!(*scene.staged.terminated.lock().unwrap(), 0);

    let error = forged(&|claims| claims.bake = "b".into()).unwrap_err();
    assert!(matches!(error, TokenError::OtherImage { .. }), "{error}");
    let error = forged(&|claims| claims.stage = "bake".into()).unwrap_err();
    assert!(matches!(error, TokenError::OtherStage { .. }), "{error}");
    for (key, value) in [
        ("instance", serde_json::json!("../i-0")),
        ("launched", serde_json::json!("never")),
        ("expires", serde_json::json!("9999-99-99T00:00:00Z")),
        ("options", serde_json::json!({"root-size": -1})),
        ("own", serde_json::json!(true)),
    ] {
        let error = forged(&|claims| claims.needs[key] = value.clone()).unwrap_err();
        assert!(matches!(error, TokenError::Damaged(_)), "{key} {value}: {error}");
    }
}

/// Times that no clock shows make no test that never ends.
#[tokio::test]
async fn times_of_a_token_are_bounded_by_the_clock() {
    let scene = Scene::new(Guest::Writes(""), false).await;
    let spec = spec(1);
    let (ledger, wait) = waiting(&scene, &spec).await;
    let stage = scene.stage(&spec, &ledger);
    let mut claims: Claims<serde_json::Value> = wait.token.claims("test").unwrap();
    for time in ["9999-12-30T22:00:00Z", "-009999-01-02T01:59:59Z"] {
        claims.needs["launched"] = serde_json::json!(time);
        claims.needs["expires"] = serde_json::json!(time);
        let mut boot: Boot = stage.resume(&StageToken::of(&claims).unwrap()).unwrap();
        let report = is_done(stage.go_on(&mut boot, Until::Done, &Stop::never(), |_| ()).await.unwrap());
        assert!(!report.passed());
    }
}
