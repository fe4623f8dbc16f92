//! Tests of the compression thread on real files.

use std::fs;
use std::io::Read as _;
use std::sync::mpsc;
use std::thread;

use super::super::tests::TempDir;
use super::*;

fn log_name(micros: u64, compression: Compress) -> LogName {
    LogName {
        stamp: Stamp::from_unix_micros(micros),
        compression,
    }
}

fn work(dir: &Path, compress: Compress) -> Work {
    Work {
        dir: dir.to_path_buf(),
        compress,
        keep: Retention::default(),
        upto: Stamp::from_unix_micros(u64::MAX),
        now: Stamp::from_unix_micros(u64::MAX),
    }
}

/// Returns this many megabytes of lines.
fn output(megabytes: usize) -> Vec<u8> {
    let lines = (0_u64..).map(|n| {
        format!(
            "{n:09} {:x} some output\n",
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        )
    });
    let bytes = lines.flat_map(String::into_bytes);
    bytes.take(megabytes << 20).collect()
}

/// Waits until no work is left.
fn finish(compressor: &Compressor) {
    compressor.begin();
    while compressor.shared.lock().is_running {
        thread::yield_now();
    }
}

#[test]
fn both_formats_come_back_whole_and_small() {
    let input = output(3);
    for compression in [Compress::Zstd, Compress::Gzip] {
        let dir = TempDir::new(&format!("pack-{compression:?}"));
        let plain_path = dir.0.join(log_name(1, Compress::None).file_name());
        let packed_path = dir.0.join(log_name(1, compression).file_name());
        fs::write(&plain_path, &input).unwrap();
        tidy(
            &RealDisk,
            &work(&dir.0, compression),
            &AtomicBool::new(false),
        )
        .unwrap();
        assert!(!plain_path.exists());
        let packed = fs::read(&packed_path).unwrap();
        assert!(packed.len() < input.len() / 2, "{}", packed.len());
        let mut output = Vec::new();
        match compression {
            Compress::Gzip => {
                let mut decoder = flate2::read::GzDecoder::new(&*packed);
                decoder.read_to_end(&mut output).unwrap();
            }
            _ => {
                let mut decoder = zstd::Decoder::new(&*packed).unwrap();
                decoder.window_log_max(WINDOW_LOG).unwrap();
                decoder.read_to_end(&mut output).unwrap();
                // The checksum is present: a changed byte is detected.
                let mut torn = packed.clone();
                *torn.last_mut().unwrap() ^= 1;
                assert!(zstd::decode_all(&*torn).is_err());
            }
        }
        assert!(output == input);
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
    }
}

#[test]
fn an_order_to_stop_leaves_the_plain_file_alone() {
    let dir = TempDir::new("abandon");
    let plain_path = dir.0.join(log_name(1, Compress::None).file_name());
    fs::write(&plain_path, output(1)).unwrap();
    tidy(
        &RealDisk,
        &work(&dir.0, Compress::Zstd),
        &AtomicBool::new(true),
    )
    .unwrap();
    assert_eq!(fs::read(&plain_path).unwrap(), output(1));
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1);
}

#[test]
fn the_thread_lives_while_there_is_work() {
    const KINDS: [(&str, Compress); 2] = [("a", Compress::Zstd), ("b", Compress::Gzip)];
    let dir = TempDir::new("thread");
    let compressor = Compressor::new(|_, _, report| panic!("{report:?}"));
    for round in 0..3 {
        for (name, compression) in KINDS {
            let service_dir = dir.0.join(name);
            fs::create_dir_all(&service_dir).unwrap();
            let plain = log_name(round, Compress::None);
            fs::write(service_dir.join(plain.file_name()), output(1)).unwrap();
            compressor.of(&ServiceName::new(name).unwrap())(work(&service_dir, compression));
        }
        finish(&compressor);
        for (name, compression) in KINDS {
            let packed = log_name(round, compression);
            assert!(dir.0.join(name).join(packed.file_name()).exists());
        }
    }
}

#[test]
fn a_failure_is_said_once_and_so_is_its_end() {
    let dir = TempDir::new("fails");
    let (sender, reports) = mpsc::channel();
    let compressor = Compressor::new(move |name, _, report| {
        let what = match report {
            Report::Failing(Task::Compression, file_error) => file_error.to_string(),
            Report::Recovered(Task::Compression, _) => "recovered".to_owned(),
            report => panic!("{report:?}"),
        };
        sender.send(format!("{name}: {what}")).unwrap();
    });
    let plain_path = dir.0.join(log_name(1, Compress::None).file_name());
    let blocked_path = dir.0.join(log_name(1, Compress::Zstd).temp_name());
    fs::write(&plain_path, "a line\n").unwrap();
    // A directory can be neither deleted as a file nor written.
    fs::create_dir(&blocked_path).unwrap();
    let mut submit = compressor.of(&ServiceName::new("a").unwrap());
    for _ in 0..3 {
        submit(work(&dir.0, Compress::Zstd));
        finish(&compressor);
    }
    assert_eq!(fs::read(&plain_path).unwrap(), b"a line\n");
    fs::remove_dir(&blocked_path).unwrap();
    submit(work(&dir.0, Compress::Zstd));
    finish(&compressor);
    assert!(!plain_path.exists());
    drop((submit, compressor));
    let failed = format!("a: delete {}", blocked_path.display());
    assert_eq!(
        reports.iter().collect::<Vec<_>>(),
        [&*failed, "a: recovered"]
    );
}

#[test]
fn after_the_end_nothing_is_begun() {
    let dir = TempDir::new("ended");
    let plain_path = dir.0.join(log_name(1, Compress::None).file_name());
    fs::write(&plain_path, "a line\n").unwrap();
    let compressor = Compressor::new(|_, _, _| {});
    let mut submit = compressor.of(&ServiceName::new("a").unwrap());
    compressor.stop();
    submit(work(&dir.0, Compress::Zstd));
    finish(&compressor);
    assert!(plain_path.exists());
}
