//! Every specialisation links and validates.
use anybit::{Caps, DeviceClass, OutputFormat, PlanOptions, Problem, candidates};

#[test]
fn validate_all() {
    let mut caps = Caps::floor();
    let mut seen = std::collections::BTreeSet::new();
    for (class, subgroup) in [(DeviceClass::Gpu, None), (DeviceClass::Software, Some((8, 8)))] {
        caps.class = class;
        caps.subgroup = subgroup;
        for (a, w, out) in [
            ("f32", "f32", OutputFormat::F32), ("f16", "bf16", OutputFormat::F32), ("f32", "u4g32hm", OutputFormat::F32), ("f32", "i3g16f", OutputFormat::F32),
            ("i8rf", "u4g32hm", OutputFormat::F32), ("i8", "i8", OutputFormat::I32), ("b2rf", "i3rh", OutputFormat::F32), ("u8g32fz", "u7g16hz", OutputFormat::F32),
            ("i4rf", "i4rf", OutputFormat::F32), ("b1rf", "b1rf", OutputFormat::F32),
        ] {
            for m in [1, 4, 64] {
                let problem = Problem::new((m, 96, 64), a.parse().unwrap(), w.parse().unwrap()).with_output(out);
                let (accepted, _) = candidates(&problem, &caps, &PlanOptions::default()).unwrap();
                for c in accepted {
                    if !seen.insert(c.specialization.id.clone()) { continue; }
                    let linked = match c.specialization.link() { Ok(l) => l, Err(e) => { println!("LINK {} {e}", c.specialization.id); continue; } };
                    let module = match naga::front::wgsl::parse_str(&linked.wgsl) {
                        Ok(m) => m,
                        Err(e) => { let l = e.location(&linked.wgsl).unwrap(); println!("PARSE {} {:?}: {}\n   {}", c.specialization.id, linked.line_map.locate(l.line_number), e, linked.wgsl.lines().nth(l.line_number as usize - 1).unwrap()); continue; }
                    };
                    let mut v = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
                    if let Err(e) = v.validate(&module) { println!("VALID {} {}", c.specialization.id, e.emit_to_string(&linked.wgsl).chars().take(700).collect::<String>()); continue; }
                    println!("ok {} {} lines", c.specialization.id, linked.wgsl.lines().count());
                }
            }
        }
    }
}
