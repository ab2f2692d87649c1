//! The Ms of the native lane: how their threads are made, how long they rest, and how they end.
//!
//! Threads are made by a thread of their own, the starter: pthread_create takes locks of the C
//! library that a goroutine stopped in mid-call may hold, and a P that waited for it could be the
//! one that this goroutine needs. The starter also joins the threads that have ended.
//!
//! Of `lane`: `Env`, `Os`, `Sched`, `Host`, `sched`, `sysmon`, `switching`, `gpa`, `m_idle_ns`,
//! `enterThread`, `leaveThread`, `letMove` and `rest`, as lane.zig has them.
const std = @import("std");

pub fn Threads(comptime lane: type) type {
    return struct {
        const Env = lane.Env;
        const Os = lane.Os;
        const Sched = lane.Sched;
        const M = lane.M;
        const P = lane.P;
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        const State = struct {
            lock: Env.Lock = .{},
            next_m: u32 = 0,
            all: ?*M = null,
            /// To be started, with their Ps in nextp.
            wanted: ?*M = null,
            /// Have ended, to be joined.
            ended: ?*M = null,
            /// Have been joined.
            buried: ?*M = null,
            starter: ?Os.Thread = null,
            starter_tid: Env.Atomic(i32) = .init(0),
            note: Env.Note = .{},
            spare_wanted: Env.Atomic(bool) = .init(false),
            stop: bool = false,
        };

        var own: State = .{};

        /// As if there had been no thread.
        pub fn forget() void {
            own = .{};
        }

        // ---- what the scheduler asks of its host ----

        /// Puts the M to sleep until it is woken. One too many ends after a while: then it returns
        /// false.
        pub fn sleepM(s: *Sched, m: *M) bool {
            // Only Ms that wait for work from outside, such as native.call: others are woken in the
            // hope of some, often in vain.
            if (m.rest.spin(&m.note, lane.tunables.spin_ns.get())) {
                if (m.spinning) m.rest.forget();
                return true;
            }
            lane.rest(m);
            const began = Env.nanotime();
            while (true) {
                switch (m.note.sleep(lane.m_idle_ns)) {
                    .woken => {
                        lane.letMove(m);
                        if (!m.spinning) m.rest.slept(began, lane.tunables.spin_ns.get());
                        return true;
                    },
                    .interrupted => {},
                    .timeout => {
                        s.lock.lock();
                        defer s.lock.unlock();
                        // One spare is kept for a preemption that needs it.
                        const few = s.nmidle.load(.monotonic) <= s.gomaxprocs.load(.monotonic);
                        if (few) continue;
                        if (s.unlistM(m)) return false;
                    },
                }
            }
        }

        /// No M has `p`, and mcount counts the thread already.
        pub fn newM(s: *Sched, p: *P, spinning: bool) void {
            const m = newMemory() catch return s.newMFailed(p, spinning);
            m.* = .{ .nextp = p, .spinning = spinning };
            request(m);
        }

        // ---- threads ----

        pub fn start() error{ThreadLimit}!void {
            forget();
            own.starter = Os.spawn(starterMain, null, .{ .signals = .blocked }) catch
                return error.ThreadLimit;
        }

        fn request(m: *M) void {
            own.lock.lock();
            m.id = own.next_m;
            own.next_m += 1;
            m.idle_next = own.wanted;
            own.wanted = m;
            own.lock.unlock();
            own.note.wake();
        }

        /// A spare M for preemptions that need one, unless there is one or the limit is reached.
        /// Signal handlers call this, so the starter does the work.
        pub fn wantSpare() void {
            if (lane.sched.nmidle.load(.monotonic) > 0) return;
            own.spare_wanted.store(true, .release);
            own.note.wake();
        }

        fn makeSpare() void {
            if (lane.sched.nmidle.load(.monotonic) > 0) return;
            if (!lane.sched.mayAddM()) return;
            const m = newMemory() catch return lane.sched.endM();
            m.* = .{};
            request(m);
        }

        /// Whether a thread, by its number, is one of these; sysmon's is not.
        pub fn isOwn(tid: i32) bool {
            if (tid == own.starter_tid.load(.monotonic)) return true;
            own.lock.lock();
            defer own.lock.unlock();
            var it = own.all;
            while (it) |m| : (it = m.all_next) {
                if (@atomicLoad(i32, &m.tid, .monotonic) == tid) return true;
            }
            return false;
        }

        /// The threads that run goroutines now, as many as `out` holds.
        pub fn busy(out: []i32) []i32 {
            own.lock.lock();
            defer own.lock.unlock();
            var n: usize = 0;
            var it = own.all;
            while (it) |m| : (it = m.all_next) {
                if (n == out.len) break;
                const g = m.curg.load(.monotonic) orelse continue;
                out[n] = @atomicLoad(i32, &m.tid, .monotonic);
                if (out[n] != 0 and g.status.load(.monotonic) == .running) n += 1;
            }
            return out[0..n];
        }

        fn starterMain(_: ?*anyopaque) void {
            own.starter_tid.store(Os.threadId(), .monotonic);
            while (true) {
                _ = own.note.sleep(null);
                own.note.clear();
                if (own.spare_wanted.swap(false, .acquire)) makeSpare();
                while (true) {
                    own.lock.lock();
                    const ended = own.ended;
                    if (ended) |m| own.ended = m.idle_next;
                    const wanted = if (ended == null) own.wanted else null;
                    if (wanted) |m| {
                        own.wanted = m.idle_next;
                        m.idle_next = null;
                        m.all_next = own.all;
                        own.all = m;
                    }
                    const ending = own.stop;
                    own.lock.unlock();
                    if (ended) |m| {
                        m.thread.?.join();
                        unlist(m);
                    } else if (wanted) |m| {
                        startThread(m);
                    } else if (ending) return else break;
                }
            }
        }

        fn startThread(m: *M) void {
            m.thread = Os.spawn(mMain, m, .{ .signals = .blocked }) catch {
                const p = m.nextp;
                const spinning = m.spinning;
                unlist(m);
                return if (p) |given|
                    lane.sched.newMFailed(given, spinning)
                else
                    lane.sched.endM();
            };
        }

        fn unlist(m: *M) void {
            own.lock.lock();
            defer own.lock.unlock();
            var link = &own.all;
            while (link.*) |each| : (link = &each.all_next) {
                if (each != m) continue;
                link.* = m.all_next;
                break;
            }
            m.idle_next = own.buried;
            own.buried = m;
        }

        /// For an M. sysmon may still be about to signal one with a thread that has ended. So the
        /// memory of Ms is used again, but given back only when sysmon has ended.
        fn newMemory() error{OutOfMemory}!*M {
            own.lock.lock();
            const used = own.buried;
            if (used) |m| own.buried = m.idle_next;
            own.lock.unlock();
            return used orelse lane.gpa.create(M);
        }

        fn freeMemory() void {
            while (own.buried) |m| {
                own.buried = m.idle_next;
                lane.gpa.destroy(m);
            }
        }

        /// Of each M.
        pub fn mMain(raw: ?*anyopaque) void {
            const m: *M = @ptrCast(@alignCast(raw.?));
            lane.enterThread(m);
            if (m.nextp) |p| {
                m.nextp = null;
                Sched.acquireP(m, p);
                lane.switching.loop(m);
            } else if (lane.sched.stopM(m)) lane.switching.loop(m);
            lane.leaveThread(m);
            own.lock.lock();
            m.idle_next = own.ended;
            own.ended = m;
            own.lock.unlock();
            own.note.wake();
            // Last: `stop` waits for it, and then for the starter, which joins what has ended.
            lane.sched.endM();
        }

        // ---- the end ----

        /// Ends all threads, when there is no goroutine any more.
        pub fn stop() void {
            const s = &lane.sched;
            s.lock.lock();
            s.stopping.store(true, .seq_cst);
            s.lock.unlock();
            lane.sysmon.stop();
            while (true) {
                if (planted != .poller_sleeps_on) lane.Host.pollBreak(s);
                if (s.endIdleMs() == 0) break;
                Os.sleepNs(20 * std.time.ns_per_us);
                while (planted == .rests_at_the_end and s.mcount > 0) Os.sleepNs(1);
            }
            stopStarter();
            freeMemory();
        }

        pub fn stopStarter() void {
            own.lock.lock();
            own.stop = true;
            own.lock.unlock();
            own.note.wake();
            own.starter.?.join();
        }
    };
}
