//! The end of a run, of a serial lane.
//!
//! The main goroutine has ended. The layer above has told the others to end and has waited for
//! them; those that are left are given up. What one of them still does must reach neither the next
//! run nor memory that is not its own any more. So this is decided here, on g0 of the thread that
//! called `run` and under the host's lock, for each M:
//!
//!  - One that is at rest, in the poller, on an errand or on its way to g0 is *ours*. It finds that
//!    the lane is not `live`, comes home, and its thread ends. The run does not end before it has:
//!    an M counts from before its thread is started (`enlistM`) until it has touched the lane for
//!    the last time (`delistM`).
//!  - One that has a goroutine in a blocking call, or one that runs on without the P, is a *stray*:
//!    golibx can't know when it comes back. It is struck off the lane's lists, and touches nothing
//!    of the lane from then on: `owns` is false for it, for ever, since its generation is never the
//!    lane's again. Its goroutine goes on after its call as a thread would; where it parks, the
//!    layer above ends it, or has it `freeze`. Its thread then ends by itself.
//!  - One in the middle of a switch is neither. The host's swap may let the lock go there, and what
//!    follows it (`settle`) belongs to the run: it is waited for until it is one or the other.
//!
//! Goroutines that wait are in no queue of the next run: queues are stamped with the generation of
//! those in them, which moves on when the last of ours is gone. They never run again; their stacks
//! are kept.
const std = @import("std");
const arch = @import("../arch/arch.zig");
const sysmon = @import("sysmon.zig");

/// How often is looked again whether an M has come home, or has let the P go.
const look_ns = std.time.ns_per_ms;
const glance_ns = 50 * std.time.ns_per_us;
/// One that computes without a place to be preempted is given up after this long.
const patience_ns = std.time.ns_per_s;

/// The part of a Lane that is about its end. `Env` is what it has of the machine: Real in lane.zig,
/// or that of a model, which explores this code (zsrc/check/models/ending.zig).
pub fn Ending(comptime Lane: type, comptime Host: type, comptime Env: type) type {
    return struct {
        const Self = Lane;
        const G = Env.G;
        const M = Env.M;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// On g0 of the M that called `run`, with the lock, when the main goroutine has ended.
        pub fn stop(self: *Self, m: *M) void {
            if (planted == .generation_early) self.generation +%= 1;
            takeP(self, m);
            @atomicStore(bool, &self.live, false, .release);
            self.virtual_ns = 0;
            _ = self.retire(m);
            if (self.poller != null) Host.pollBreak();
            // sysmon and the other Ms need the host's lock to end.
            while (true) {
                m.note.clear();
                sever(self);
                Host.release(m);
                if (self.sysmon.thread != null and planted != .sysmon_goes_on) sysmon.stop(self);
                self.quitIdle();
                self.wakeLocked();
                const over = self.counters.threads.load(.acquire) == 1;
                if (!over) _ = m.note.sleep(look_ns);
                Host.acquire(m);
                if (over) break;
            }
            if (planted != .generation_stays)
                @atomicStore(u32, &self.generation, self.generation +% 1, .release);
            // It takes the lock that the last to leave wakes this thread under.
            self.leaveThread(m);
            Env.setCurrent(null);
            self.dispose();
        }

        /// The main goroutine may have been without the P when it ended. The M that holds the P
        /// passes through g0, or is asked to, and finds that the run is over, unless it blocks.
        fn takeP(self: *Self, m: *M) void {
            const began = Env.nanotime();
            var away: u32 = 0;
            while (self.owner.load(.monotonic)) |owner| {
                if (owner == m) break;
                if (self.running) |g| if (isSettled(owner, g)) {
                    if (away >= Env.glances or Env.nanotime() - began > patience_ns) {
                        self.lose(g);
                        break;
                    }
                    if (away == 0) Host.armPreempt(g);
                };
                self.attention.store(true, .release);
                const tick = self.tick.raw;
                Host.release(m);
                Env.sleepNs(glance_ns);
                const detached = self.attachment(owner) == .detached;
                Host.acquire(m);
                away = if (detached and self.tick.raw == tick) away + 1 else 0;
            }
            self.owner.store(null, .release);
        }

        /// Whether the goroutine on the M runs code of its own, blocking or not, rather than the
        /// lane's in the middle of a switch. With the lock.
        fn isSettled(m: *const M, g: *const G) bool {
            return (g.status == .running or g.status == .syscall) and
                (planted == .mid_switch_is_settled or
                    m.state.load(.monotonic) == Host.stateOf(@constCast(g)));
        }

        /// Strikes the strays off. Those that are neither that nor ours yet are counted still.
        fn sever(self: *Self) void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            var link = &self.all_m;
            while (link.*) |m| {
                const goes = if (m.curg) |g| isSettled(m, g) else false;
                if (goes) {
                    m.stray = true;
                    _ = self.counters.threads.fetchSub(1, .monotonic);
                }
                if (goes and planted != .stray_stays_listed)
                    link.* = m.next_all
                else
                    link = &m.next_all;
            }
        }

        /// The calling goroutine, if its run has ended under it.
        pub fn stray(self: *Self) ?*G {
            const m = Env.current() orelse return null;
            if (m.main or self.owns(m)) return null;
            return m.curg;
        }

        /// Ends a stray. The stack is left for good, and the host buries it on g0.
        pub fn leaveStray(_: *Self, m: *M, g: *G) noreturn {
            m.left = g;
            goHome(m);
        }

        /// The calling stray never goes on.
        pub fn freeze(_: *Self) noreturn {
            goHome(Env.current().?);
        }

        fn goHome(m: *M) noreturn {
            m.curg = null;
            Host.swap(m, null);
            var discard: usize = undefined;
            arch.switchTo(&discard, m.sp);
            unreachable;
        }
    };
}
