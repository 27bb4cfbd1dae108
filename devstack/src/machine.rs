//! Says before anything is fetched whether this machine can run the services: the ClickHouse engine is published for
//! x86-64 Linux with glibc and needs AVX2.

use crate::StackError;

/// What of a machine matters here.
struct Machine<'a> {
    os: &'a str,
    arch: &'a str,
    has_glibc: bool,
    has_avx2: bool,
}

/// Refuses a machine that does not fit, in words.
pub(crate) fn check() -> Result<(), StackError> {
    #[cfg(target_arch = "x86_64")]
    let has_avx2 = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let has_avx2 = false;
    // A program linked against musl cannot load a glibc library, whatever else is on the machine.
    let has_glibc = cfg!(target_env = "gnu");
    let machine = Machine {
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        has_glibc,
        has_avx2,
    };
    unfit_for(&machine).map_or(Ok(()), |reason| Err(StackError::UnfitMachine { reason }))
}

fn unfit_for(machine: &Machine<'_>) -> Option<String> {
    if machine.os != "linux" || machine.arch != "x86_64" {
        let (os, arch) = (machine.os, machine.arch);
        return Some(format!(
            "the ClickHouse engine is published for x86-64 Linux, this is {arch} {os}"
        ));
    }
    if !machine.has_glibc {
        return Some(
            "the ClickHouse engine needs glibc, this program is built for another C library"
                .to_owned(),
        );
    }
    if !machine.has_avx2 {
        return Some("the ClickHouse engine needs a processor with AVX2".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIT: Machine<'_> = Machine {
        os: "linux",
        arch: "x86_64",
        has_glibc: true,
        has_avx2: true,
    };

    #[test]
    fn a_fit_machine_is_accepted() {
        assert_eq!(unfit_for(&FIT), None);
    }

    #[test]
    fn an_unfit_machine_is_told_what_it_lacks() {
        let unfit = [
            Machine { os: "macos", ..FIT },
            Machine {
                arch: "aarch64",
                ..FIT
            },
            Machine {
                has_glibc: false,
                ..FIT
            },
            Machine {
                has_avx2: false,
                ..FIT
            },
        ];
        let reasons: Vec<_> = unfit
            .iter()
            .map(|machine| unfit_for(machine).unwrap())
            .collect();
        insta::assert_snapshot!(reasons.join("\n"), @r"
        the ClickHouse engine is published for x86-64 Linux, this is x86_64 macos
        the ClickHouse engine is published for x86-64 Linux, this is aarch64 linux
        the ClickHouse engine needs glibc, this program is built for another C library
        the ClickHouse engine needs a processor with AVX2
        ");
    }
}
