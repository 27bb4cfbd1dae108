//! Makes Cargo notice a changed dashboard: `include_dir!` reads the folder without telling it.

fn main() {
    println!("cargo::rerun-if-changed=../grafana/dashboards");
}
