//! Makes Cargo notice a new migration: `include_dir!` reads the folder without telling it.

fn main() {
    println!("cargo::rerun-if-changed=clickhouse");
}
