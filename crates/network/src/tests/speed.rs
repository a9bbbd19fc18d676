//! How long the parts take. `cargo test --release -p rubelet-network -- --ignored --nocapture speed`

use std::time::{Duration, Instant};

use super::world::{Pod, on_a_host, port};
use crate::Protocol;

const ROUNDS: usize = 100;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn speed_of_the_bridge() {
    for is_alone in [true, false] {
        measure(is_alone);
    }
}

/// With the removal of one link after the other, or of all at once.
fn measure(is_alone: bool) {
    on_a_host(|world| {
        let network = world.network();
        // Bridge and rules are there.
        Pod::new("stays", &[]).start(&network);
        let ids: Vec<String> = (0..ROUNDS).map(|n| format!("pod{n}")).collect();
        let time = |work: &mut dyn FnMut()| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        };
        let (mut make, mut attach, mut detach, mut remove) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let pods: Vec<Pod> = (8000..).zip(&ids).map(|(n, id)| Pod::new(id, &[port(n, 80, Protocol::Tcp)])).collect();
        for pod in &pods {
            make.push(time(&mut || drop(network.make_namespace(&pod.id).unwrap())));
            attach.push(time(&mut || drop(pod.attach(&network).unwrap())));
        }
        let first = attach[0];
        for id in &ids {
            detach.push(time(&mut || network.detach(id).unwrap()));
            if is_alone {
                network.bridge().leaving.settle();
            }
            remove.push(time(&mut || network.remove_namespace(id).unwrap()));
        }
        let ready = median((0..ROUNDS).map(|_| time(&mut || network.ready().unwrap())).collect());
        let swept = time(&mut || drop(network.sweep(&[]).unwrap()));
        let (last_attach, last_detach) = (attach[ROUNDS - 1], detach[ROUNDS - 1]);
        println!(
            "alone: {is_alone}; make namespace {:?}; attach {:?} (first {first:?}, last {last_attach:?}); detach {:?} (last {last_detach:?}); remove namespace {:?}; ready {ready:?}; the sweep after all that {swept:?}",
            median(make),
            median(attach),
            median(detach),
            median(remove),
        );
    });
}
