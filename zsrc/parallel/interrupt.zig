//! What a preemption signal does to the native goroutine that it finds: which way is open there.
//!
//! The ideas are those of "Lightweight Preemptive User-Level Threads" (PPoPP '21). The signal
//! handler runs on the goroutine's own stack.
//!  - Signal-yield, in registered text: the handler switches to another goroutine. The kernel's
//!    signal frame, on the stack that stays behind, keeps every register. The goroutine may return
//!    from its handler on another thread: that thread's alternate signal stack is entered into the
//!    frame first, since the return sets it.
//!  - KLT-switch, anywhere else: libraries may hold locks or addresses of thread-locals. The thread
//!    sleeps inside the handler, goroutine and all, and passes its P on; an M runs the goroutine
//!    again by giving a P to that thread. Also in registered text that is called back to, by C code
//!    that keeps something on its thread for the program that called it (`holds`).
//!  - While the goroutine holds a lock that the whole program waits for, it goes on for some
//!    slices.
//!  - Inside the runtime neither is possible; the end of the call gives way (switching.leave).
//! A request that is refused is counted by its reason, and comes again after another slice.
//!
//! Of `lane`: `Env`, `Sched`, `G`, `M`, `P`, `options`, `sched`, `arena`, `switching`, `threads`,
//! `events`, `signal`, `holds` and `preemptible`, as lane.zig has them.
const types = @import("types.zig");
const count = types.count;

/// Where the signal found the thread, and how to leave it.
pub const Interrupted = struct {
    pc: usize,
    sp: usize,
};

pub fn Interrupt(comptime lane: type) type {
    return struct {
        const G = lane.G;
        const M = lane.M;
        const P = lane.P;
        const switching = lane.switching;
        const Counter = lane.Env.Atomic(u64);
        const planted = if (@hasDecl(lane.Env, "planted")) lane.Env.planted else .none;

        pub var requests: Counter = .init(0);
        pub var refused_idle: Counter = .init(0);
        pub var refused_stack: Counter = .init(0);

        /// sysmon's: signals the M, one signal at a time. Its P asks for attention already.
        pub fn send(m: *M) void {
            if (!@atomicLoad(bool, &lane.options.preempt_async, .monotonic)) return;
            if (m.signalled.swap(true, .acq_rel)) return;
            if (lane.signal(m)) {
                _ = requests.fetchAdd(1, .monotonic);
            } else m.signalled.store(false, .release);
        }

        /// In the handler, on whatever stack the thread was on. True if the goroutine may have
        /// changed threads.
        pub fn onSignal(m: *M, where: Interrupted) bool {
            const g = lane.arena.find(where.sp) orelse {
                m.signalled.store(false, .release);
                refuse(if (m.curg.load(.monotonic) == null) &refused_idle else &refused_stack);
                return false;
            };
            // From here on the goroutine is inside the runtime: a second signal that comes into
            // this handler must find it so, before anything of its M is read or a lock taken.
            switching.lock(g);
            const moved = obey(m, g, where.pc);
            // Not `leave`: the next request comes by its own signal.
            _ = switching.letGo(g);
            return moved;
        }

        /// `g` counts this handler among its `locks`.
        fn obey(m: *M, g: *G, pc: usize) bool {
            m.signalled.store(false, .release);
            const p = m.p orelse {
                refuse(&refused_idle);
                return false;
            };
            // Only this handler writes these counters, and no two run at a time on one P.
            if (g.locks > 1) {
                g.preempt = true;
                count(&p.counters.refused_runtime, 1);
                return false;
            }
            if (g.status.load(.monotonic) != .running or m.curg.load(.monotonic) != g) {
                refuse(&refused_idle);
                return false;
            }
            if (p.schedtick.load(.monotonic) != p.preempt_tick.load(.monotonic)) {
                count(&p.counters.refused_stale, 1);
                return false;
            }
            if (!wantedByOthers(p) or !@atomicLoad(bool, &lane.options.preempt_async, .monotonic)) {
                count(&p.counters.refused_alone, 1);
                return false;
            }
            const held = lane.holds();
            if (held == .lock and p.isPatient()) {
                count(&p.counters.refused_lock, 1);
                return false;
            }
            if (held == .nothing and lane.preemptible(pc)) {
                count(&p.counters.preempt_yields, 1);
                signalYield(p, g);
                return true;
            }
            switchThread(m, p, g);
            return false;
        }

        fn refuse(counter: *Counter) void {
            _ = counter.fetchAdd(1, .monotonic);
        }

        fn wantedByOthers(p: *P) bool {
            const s = &lane.sched;
            return !p.runq.isEmpty() or s.queue.len.load(.monotonic) > 0 or
                p.id >= s.gomaxprocs.load(.monotonic) or s.timersDue(p, lane.Env.nanotime());
        }

        fn signalYield(p: *P, g: *G) void {
            lane.events.preempted(p, g, false);
            g.transition(.running, .preempted);
            g.reason = .preempted;
            switching.switchAway(g, switching.commitPreempted, null);
            g.reason = .none;
        }

        /// The thread sleeps with its goroutine until that one's turn has come.
        noinline fn switchThread(m: *M, p: *P, g: *G) void {
            const s = &lane.sched;
            // A P must not wait for a thread to be made: the goroutine that stops here may hold
            // what making one needs. Nor must it stay here for want of one: this goroutine may wait
            // for what another holds that was stopped in the same way, and that one has its thread.
            const heir = s.takeHeir(p, s.timersDue(p, lane.Env.nanotime())) orelse {
                count(&p.counters.refused_thread, 1);
                return lane.threads.wantSpare();
            };
            count(&p.counters.preempt_klt, 1);
            lane.events.preempted(p, g, true);
            g.transition(.running, .preempted);
            g.transition(.preempted, .runnable);
            g.reason = .preempted;
            const tied = g.locked_m != null;
            g.locked_m = m;
            m.curg.store(null, .monotonic);
            heir.nextp = lane.Sched.releaseP(m);
            // One that its goroutine has locked wakes up elsewhere (Proc.stopLockedM).
            if (heir.locked_g == null) lane.bringHere(heir);
            s.putGlobal(g);
            heir.note.wake();
            lane.threads.wantSpare();
            while (m.note.sleep(null) != .woken) {}
            lane.letMove(m);
            _ = s.takeNextP(m);
            if (!tied and planted != .stays_tied) g.locked_m = null;
            g.reason = .none;
            switching.runOn(m, m.p.?, g);
        }
    };
}
