//! The boot test against instances whose end, console and faults are chosen. Where one answers, it runs the user data
//! that it was given.

use std::io::Read;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bakehouse::acceptance::{AcceptanceError, BootReport, BootSpec, Stage, Status, boot_test};
use bakehouse::cloud::{
    Cloud, CloudError, ErrorKind, Instance, InstanceId, InstanceQuery, InstanceState, Instances, NewInstance,
    Place, Result, Tags, Token,
};
use bakehouse::host::exec::Cmd;
use bakehouse::host::stop::Stop;
use bakehouse::recipe::{BootTest, Check, Span};
use bakehouse::report::Reporter;

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
    guest: Guest,
    folder: tempfile::TempDir,
    /// What `terminate` says.
    stuck: bool,
    stop: Stop,
    terminated: Mutex<u32>,
    launched: Mutex<Vec<NewInstance>>,
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
    async fn launch(&self, new: &NewInstance, _token: &Token) -> Result<InstanceId> {
        self.launched.lock().unwrap().push(new.clone());
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
            image: bakehouse::cloud::ImageId::parse("ami-01234567").unwrap(),
            state: match self.guest {
                Guest::Ends(_) => InstanceState::Terminated,
                _ => InstanceState::Running,
            },
            reason: Some("a reason".to_owned()),
            tags: Tags::new(),
        })
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

fn spec(cloud_init: bool, within: u64) -> BootSpec {
    BootSpec {
        checks: checks(),
        boot: BootTest { within: Some(Span::from_secs(within)), console: None },
        kind: None,
        boot_mode: None,
        root_size: None,
        cloud_init,
        bake: "bake".to_owned(),
        attempt: 1,
        tags: Tags::new(),
    }
}

struct Run {
    result: std::result::Result<BootReport, AcceptanceError>,
    staged: Arc<Staged>,
}

async fn run(guest: Guest, stuck: bool, spec: &BootSpec, stop: &Stop) -> Run {
    let store = tempfile::tempdir().unwrap();
    let (mut cloud, place): (Cloud, Place) = stored::cloud(store.path());
    let image = stored::image(&cloud, [0_u8; 512].as_slice(), 1, None).await;
    let staged = Arc::new(Staged {
        place,
        guest,
        folder: tempfile::tempdir().unwrap(),
        stuck,
        stop: Stop::never(),
        terminated: Mutex::new(0),
        launched: Mutex::new(Vec::new()),
    });
    cloud.instances = staged.clone();
    let result = boot_test(&cloud, &image, spec, &Reporter::silent(), stop).await;
    Run { result, staged }
}

fn terminated(run: &Run) -> u32 {
    *run.staged.terminated.lock().unwrap()
}

#[tokio::test]
async fn an_answer_becomes_outcomes_and_the_instance_is_ended() {
    let run = run(Guest::Answers, false, &spec(true, 100), &Stop::never()).await;
    assert_eq!(terminated(&run), 1);
    let report = run.result.unwrap();
    let names: Vec<_> = report.outcomes.iter().map(|outcome| outcome.name.as_str()).collect();
    assert_eq!(names, ["boot", "command echo fine", "command echo broken; false"]);
    assert_eq!(report.outcomes[0].status, Status::Passed);
    assert_eq!(report.outcomes[1].status, Status::Passed);
    assert_eq!(report.outcomes[2].status, Status::Failed("exit code 1, not 0; broken".to_owned()));
    assert!(!report.passed());
    assert_eq!((report.stage, report.leftover), (None, None));
    assert!(!report.console.contains("@bakehouse-1"), "{}", report.console);
    let launched = run.staged.launched.lock().unwrap();
    assert_eq!(launched[0].lifetime_seconds, 220);
    assert!(launched[0].user_data.starts_with(&[0x1f, 0x8b]));
}

#[tokio::test]
async fn an_instance_that_cannot_be_ended_is_reported_and_the_verdict_stands() {
    let run = run(Guest::Answers, true, &spec(true, 100), &Stop::never()).await;
    let report = run.result.unwrap();
    assert_eq!(report.outcomes[1].status, Status::Passed);
    assert!(report.leftover.unwrap().contains("i-0123456789abcdef0 could not be ended"));
}

#[tokio::test]
async fn a_boot_that_gets_nowhere_says_how_far_it_came() {
    let text = "[    0.0] Linux version 6\r\nALERT!  UUID=12 does not exist.  Dropping to a shell!\r\n";
    let run = run(Guest::Writes(text), false, &spec(true, 1), &Stop::never()).await;
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
        run(Guest::Ends("Kernel panic - not syncing: no init\r\n"), false, &spec(true, 1000), &Stop::never())
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
    let run = run(Guest::Writes(""), true, &spec(true, 1000), &stop).await;
    // Stopped before the launch where this machine is slow: then nothing was launched, and nothing is ended.
    let launched = run.staged.launched.lock().unwrap().len();
    assert_eq!(terminated(&run) as usize, launched);
    let Err(AcceptanceError::Stopped { left }) = run.result else {
        panic!("{:?}", run.result);
    };
    assert_eq!(left.is_some(), launched == 1);
}

#[tokio::test]
async fn without_cloud_init_the_console_alone_tells() {
    let prompt = "Debian GNU/Linux 12 web ttyS0\r\n\r\nweb login: ";
    let seen = run(Guest::Writes(prompt), false, &spec(false, 100), &Stop::never()).await;
    let report = seen.result.unwrap();
    assert_eq!(report.outcomes[0].status, Status::Passed);
    assert!(matches!(&report.outcomes[1].status, Status::NotJudged(why) if why.contains("no cloud-init")));
    assert!(report.passed());
    assert!(seen.staged.launched.lock().unwrap()[0].user_data.is_empty());

    let mut wanted = spec(false, 1);
    wanted.boot.console = Some("appliance ready".to_owned());
    let unseen = run(Guest::Writes(prompt), false, &wanted, &Stop::never()).await;
    assert!(!unseen.result.unwrap().passed());
    let seen = run(Guest::Writes("\x1b[1mappliance ready\x1b[0m"), false, &wanted, &Stop::never()).await;
    assert!(seen.result.unwrap().passed());
}
