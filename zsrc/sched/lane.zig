//! A serial lane: goroutines that run one at a time, under a lock of their host's.
//!
//! The host is an interpreter with a global lock, or a test's stand-in with a mutex. Whoever holds
//! the host's lock may touch the lane; the run queue, the timers, the channels above it need no
//! atomics of their own. The lane has one P. `owner` is the M that holds it and so runs goroutines;
//! `running` is its goroutine.
//!
//! Switching is direct: the goroutine that parks picks the next one and continues it, without a
//! detour over g0. Only an M with nothing to run goes to g0, gives the P up, leaves the host's lock
//! and waits, either in the poller (one M at most, `poller`) or on its note.
//!
//! A goroutine that blocks in a system call leaves the host's lock by itself; golibx is not told.
//! sysmon sees it (Host.detached) and sends another M to take the P: since taking it needs the
//! host's lock, a retake races with nobody. The M left behind is `lost` until its goroutine comes
//! back and notices (`here`), then takes a free P or queues its goroutine and stops, as Go's
//! exitsyscall does.
//!
//! The host's swap from one goroutine to another may let other threads run in between (Python
//! 3.12+ releases its lock there). So the leaving goroutine is made runnable or waiting only after
//! the swap, immediately before its context is saved: see `settle`.
const std = @import("std");
const os = @import("../os/os.zig");
const arch = @import("../arch/arch.zig");
const event = @import("../event/event.zig");
const g_mod = @import("g.zig");
const m_mod = @import("m.zig");
const stack_mod = @import("stack.zig");
const timer_mod = @import("timer.zig");
const sysmon = @import("sysmon.zig");

const G = g_mod.G;
const M = m_mod.M;
const Timer = timer_mod.Timer;
const Allocator = std.mem.Allocator;

/// Durations in nanoseconds, sizes in bytes. The constants are Go's (runtime/proc.go: forcePreemptNS,
/// sysmon's sleep schedule, retake's thresholds).
pub const Options = struct {
    sysmon_sleep_min_ns: u64 = 20 * std.time.ns_per_us,
    sysmon_sleep_max_ns: u64 = 10 * std.time.ns_per_ms,
    sysmon_idle_rounds: u32 = 50,
    preempt_async: bool = true,
    preempt_slice_ns: u64 = 10 * std.time.ns_per_ms,
    retake_enabled: bool = true,
    retake_threshold_ns: u64 = 20 * std.time.ns_per_us,
    retake_threshold_idle_ns: u64 = 10 * std.time.ns_per_ms,
    max_threads: u32 = 10_000,
    stack_size: usize = 1 << 20,
    stack_main_size: usize = 8 << 20,
    stack_keep: usize = 64 << 20,
    hooks_flush_interval_ns: u64 = 10 * std.time.ns_per_ms,
    hooks_ring_size: usize = 16 * 1024,
    event_mask: u32 = 0,
    seed: u64 = 0,
};

/// Plain counters are written under the lock, atomic ones by sysmon.
pub const Counters = struct {
    spawns: u64 = 0,
    switches: u64 = 0,
    preemptions: u64 = 0,
    handoffs: u64 = 0,
    retakes: u64 = 0,
    retakes_in_vain: u64 = 0,
    netpolls: u64 = 0,
    netpoll_wakeups: u64 = 0,
    idle: u64 = 0,
    preempt_requests: std.atomic.Value(u64) = .init(0),
    threads: std.atomic.Value(u32) = .init(0),
};

/// Cache lines of a waiting goroutine's stack that a switch to it reads: registers and frames.
const warm_lines = 4;
/// How long an M without work keeps its thread.
const m_idle_ns = 10 * std.time.ns_per_s;
/// How often to look again whether all goroutines are asleep for good.
const stuck_recheck_ns = 100 * std.time.ns_per_ms;
/// A free lock is there within this time.
const prompt_lock_ns = std.time.ns_per_ms;
/// A goroutine that was woken last runs next, but not more often in a row than this, so that a
/// pair that wakes each other does not starve the queue.
const next_turns = 64;
/// A blocking call that began within this time of a signal is interrupted for it.
const nudge_interval_ns = 5 * std.time.ns_per_ms;
const most_nudges = 3;
/// The network is looked at this often even while there is work.
const poll_turns = 256;

/// What can be told of a goroutine without the host's lock.
pub const Attachment = enum {
    /// It holds the lock, or its M has none on it.
    attached,
    /// It has left the lock: it blocks, or it waits for the lock.
    detached,
    /// As detached, and another thread holds the lock.
    unsure,
};

pub fn Lane(comptime Host: type) type {
    return struct {
        const Self = @This();

        gpa: Allocator,
        options: Options = .{},
        stacks: stack_mod.Pool = undefined,

        // The P.
        runq: g_mod.Queue = .{},
        runnext: ?*G = null,
        /// Goroutines that were preempted: they run when nothing else can, or when sysmon says that
        /// they waited long enough.
        preempted: g_mod.Queue = .{},
        timers: timer_mod.Heap = .{},
        /// Timers that will wake goroutines of the program's own.
        user_timers: usize = 0,
        ring: event.Ring = .{},
        /// Counts the goroutines that were put on the P, for sysmon.
        tick: std.atomic.Value(u64) = .init(0),
        /// The tick of a goroutine that was preempted before, and runs because nothing else could.
        hog_tick: std.atomic.Value(u64) = .init(0),
        /// About when such a one last began to run.
        hog_at: u64 = 0,
        turn: u32 = 0,
        running: ?*G = null,
        owner: std.atomic.Value(?*M) = .init(null),
        poller: ?*M = null,
        /// An M is on its way to take the free P.
        runner_sent: bool = false,
        /// When the poller will return by itself.
        poller_deadline: u64 = 0,

        /// sysmon asks for a turn of `attend`.
        attention: std.atomic.Value(bool) = .init(false),
        last_poll: std.atomic.Value(u64) = .init(0),

        // All goroutines and threads.
        all_g: ?*G = null,
        user_count: usize = 0,
        next_id: u64 = 1,
        main_g: ?*G = null,
        main_done: bool = false,
        /// Between start and stop.
        live: bool = false,
        /// This process was forked inside a run, whose main goroutine was `forked_main`.
        forked: bool = false,
        forked_main: ?*G = null,
        /// Ms whose goroutines are in a blocking call without a P.
        lost_count: usize = 0,
        /// Goroutines of the program's own that wait for the network.
        net_waiters: usize = 0,
        /// Guards the lists of Ms, which sysmon uses without the host's lock.
        m_lock: Lock = .{},
        idle_m: ?*M = null,
        idle_count: std.atomic.Value(u32) = .init(0),
        all_m: ?*M = null,
        next_m_id: u32 = 0,
        /// Tells the Ms of this run from those an earlier one had to leave behind.
        generation: u32 = 0,
        /// The M of the thread that called `run`.
        m0: *M = undefined,
        /// The program's, for threads that sysmon starts, which blocks all: children that goroutines
        /// fork inherit it.
        signal_mask: os.SignalMask = undefined,
        /// Signal handlers of the program's wait for the main thread.
        signal_pending: bool = false,
        signal_for_main: bool = false,
        /// How often the main thread's blocking call is still to be interrupted for them.
        nudges: u32 = 0,
        nudge_timer: Timer = .{},
        /// The main goroutine is next, and the main thread idle.
        to_main_thread: bool = false,
        sysmon: sysmon.State = .{},
        counters: Counters = .{},
        events_note: ?*G = null,
        events_timer: Timer = .{},
        events_stopped: bool = false,

        pub const Error = error{ OutOfMemory, ThreadLimit };

        // ---- life of a lane ----

        /// Runs goroutine `main` and all it starts; returns when it has finished. Called with the
        /// host's lock, on the thread that becomes the first M.
        pub fn run(self: *Self, options: Options, main: *G) Error!void {
            std.debug.assert(!self.live);
            const gpa = self.gpa;
            const keep = @max(1, options.stack_keep / (2 * os.page_size));
            self.* = .{ .gpa = gpa, .options = options, .generation = self.generation +% 1 };
            self.stacks = .init(gpa, options.stack_size, keep);
            self.ring = try .init(gpa, options.hooks_ring_size);
            errdefer self.ring.deinit(gpa);
            self.ring.mask = options.event_mask;
            const m = try gpa.create(M);
            errdefer gpa.destroy(m);
            m.* = .{ .main = true, .thread = os.thisThread() };
            self.m0 = m;
            self.signal_mask = os.signalMask();
            try self.adoptThread(m);
            self.live = true;
            self.owner.store(m, .release);
            errdefer {
                self.live = false;
                self.leaveThread(m);
                m_mod.setCurrent(null);
                self.stacks.deinit();
            }
            try sysmon.start(self);
            self.main_g = main;
            self.enlist(main);
            self.ready(main);
            while (true) {
                self.schedule(m);
                // In the child of a fork the run is over with the goroutine that forked.
                if (!self.owns(m)) return self.leaveThread(m);
                if (self.main_done) break;
                Host.release(m);
                self.pushIdle(m);
                _ = self.serve(m);
                Host.acquire(m);
                if (self.main_done) break;
                // It may have been woken for this beside its duty: see belongsElsewhere.
                if (self.owner.load(.monotonic) == null and self.anyRunnable()) {
                    self.owner.store(m, .release);
                    sysmon.wake(self);
                }
            }
            self.stop(m);
            gpa.destroy(m);
        }

        fn stop(self: *Self, m: *M) void {
            if (self.running) |g| self.leaveBehind(g);
            self.live = false;
            self.owner.store(null, .release);
            _ = self.retire(m);
            const lost: u32 = @intCast(self.lost_count);
            if (self.poller != null) Host.pollBreak();
            // sysmon and the other Ms need the host's lock to end.
            Host.release(m);
            sysmon.stop(self);
            while (true) {
                m.note.clear();
                self.quitIdle();
                // A lost M ends its thread when its goroutine comes back.
                if (self.counters.threads.load(.acquire) <= 1 + lost) break;
                _ = m.note.sleep(std.time.ns_per_ms);
            }
            Host.acquire(m);
            self.generation +%= 1;
            self.leaveThread(m);
            m_mod.setCurrent(null);
            if (self.stacks.in_use == 0) self.stacks.deinit();
            self.timers.deinit(self.gpa);
            self.ring.deinit(self.gpa);
        }

        /// A goroutine that still runs, on another M, when the main one has ended without a P.
        fn leaveBehind(self: *Self, g: *G) void {
            g.transition(.running, .syscall);
            g.m.?.lost.store(true, .monotonic);
            self.lost_count += 1;
            self.running = null;
        }

        /// Ends the threads that wait for work and joins them.
        fn quitIdle(self: *Self) void {
            while (true) {
                const m = self.popIdle() orelse break;
                while (!m.known.load(.acquire)) os.sleepNs(std.time.ns_per_us);
                const thread = m.thread.?;
                self.wakeM(m, .quit, .{});
                thread.join();
                self.freeM(m);
            }
        }

        fn adoptThread(self: *Self, m: *M) Allocator.Error!void {
            const memory = try self.gpa.alloc(u8, os.FaultStack.size);
            m.fault.enter(memory);
            m_mod.setCurrent(m);
            Host.enterThread(m);
            self.m_lock.lock();
            defer self.m_lock.unlock();
            m.id = self.next_m_id;
            m.generation = self.generation;
            self.next_m_id += 1;
            m.next_all = self.all_m;
            self.all_m = m;
            _ = self.counters.threads.fetchAdd(1, .monotonic);
        }

        /// Undoes adoptThread, on the same thread. sysmon never sees the M again after it.
        fn leaveThread(self: *Self, m: *M) void {
            Host.leaveThread(m);
            m.fault.leave();
            self.gpa.free(m.fault.memory);
            self.m_lock.lock();
            defer self.m_lock.unlock();
            var link = &self.all_m;
            while (link.*) |it| : (link = &it.next_all) {
                if (it == m) {
                    link.* = m.next_all;
                    _ = self.counters.threads.fetchSub(1, .release);
                    break;
                }
            }
        }

        fn freeM(self: *Self, m: *M) void {
            self.gpa.destroy(m);
        }

        // ---- who am I ----

        /// The goroutine that calls, holding the P; null if the caller is none. A goroutine that
        /// lost its P gets one here, or waits in the run queue until it does.
        pub inline fn here(self: *Self) ?*G {
            if (self.running) |g| {
                if (g.stack.contains(arch.stackPointer())) return g;
            }
            return self.hereSlow();
        }

        noinline fn hereSlow(self: *Self) ?*G {
            const m = m_mod.current() orelse return null;
            const g = m.curg orelse return null;
            if (!self.owns(m)) return null;
            if (!g.stack.contains(arch.stackPointer())) {
                // Another library switched stacks inside the goroutine; it is still the goroutine,
                // unless this is g0 with a goroutine left on the M, which cannot be.
                return if (self.running == g) g else null;
            }
            // The switch that brings it back may let the host's lock go, and another M retake the P.
            while (self.running != g) self.regain(g);
            return g;
        }

        /// The goroutine on this thread, whether or not it holds the P.
        pub fn onThread(self: *Self) ?*G {
            const m = m_mod.current() orelse return null;
            return if (self.owns(m)) m.curg else null;
        }

        /// Whether this M belongs to the present run and not to one that has ended.
        inline fn owns(self: *Self, m: *M) bool {
            return self.live and m.generation == self.generation;
        }

        // ---- goroutines ----

        fn enlist(self: *Self, g: *G) void {
            g.id = self.next_id;
            self.next_id += 1;
            g.all_prev = null;
            g.all_next = self.all_g;
            if (self.all_g) |head| head.all_prev = g;
            self.all_g = g;
            if (!g.system) self.user_count += 1;
        }

        fn delist(self: *Self, g: *G) void {
            if (g.all_prev) |p| p.all_next = g.all_next else self.all_g = g.all_next;
            if (g.all_next) |n| n.all_prev = g.all_prev;
            g.all_prev = null;
            g.all_next = null;
            if (!g.system) self.user_count -= 1;
        }

        /// Makes a new goroutine runnable. It gets its stack when it first runs, so that a million
        /// short ones share a few.
        pub fn go(self: *Self, g: *G) void {
            self.enlist(g);
            self.counters.spawns += 1;
            g.transition(.idle, .runnable);
            self.runq.push(g);
            self.noteWork();
        }

        /// Makes a goroutine that waits, or is about to, runnable. The caller has claimed it.
        pub inline fn ready(self: *Self, g: *G) void {
            switch (g.status) {
                .parking => return g.transition(.parking, .notified),
                .idle => g.transition(.idle, .runnable),
                else => g.transition(.waiting, .runnable),
            }
            if (self.runnext) |old| self.runq.push(old);
            self.runnext = g;
            self.noteWork();
        }

        /// As `ready`, at the end of the queue: for those woken by the poller or a timer.
        pub inline fn readyLast(self: *Self, g: *G) void {
            if (g.status == .parking) return g.transition(.parking, .notified);
            g.transition(.waiting, .runnable);
            self.runq.push(g);
            self.noteWork();
        }

        /// Decides who wakes a waiter: true for the first that asks.
        pub inline fn claim(_: *Self, g: *G, wake: g_mod.Wake) bool {
            if (g.claimed) return false;
            g.claimed = true;
            g.wake = wake;
            return true;
        }

        inline fn noteWork(self: *Self) void {
            if (self.owner.load(.monotonic) == null) self.wakeP();
        }

        /// There is work and nobody holds the P: as Go's wakep.
        noinline fn wakeP(self: *Self) void {
            if (!self.live) return;
            if (self.poller != null) return Host.pollBreak();
            self.sendRunner();
        }

        /// Has an M take the free P, if none is on its way.
        fn sendRunner(self: *Self) void {
            if (self.runner_sent) return;
            self.runner_sent = true;
            // Without a thread to be had, those that come back from blocking calls take the P.
            self.startM(.run, .{}) catch {
                self.runner_sent = false;
            };
        }

        // ---- what sysmon asks, without the lock ----

        /// Whether goroutines wait for the P, as far as can be told without the lock.
        pub fn othersRunnable(self: *Self) bool {
            return @atomicLoad(usize, &self.runq.len, .monotonic) > 0 or
                @atomicLoad(?*G, &self.runnext, .monotonic) != null;
        }

        pub fn hogsWait(self: *Self) bool {
            return @atomicLoad(usize, &self.preempted.len, .monotonic) > 0;
        }

        /// Where the goroutine on `m` is, with respect to the host's lock.
        pub inline fn attachment(_: *Self, m: *M) Attachment {
            const state = m.state.load(.monotonic) orelse return .attached;
            return Host.attachment(state);
        }

        pub inline fn networkPending(_: *Self) bool {
            return Host.pollPending();
        }

        /// How long before the end of a slice to ask: what the host's lock takes to get.
        pub inline fn preemptLead(self: *Self) u64 {
            return @min(Host.preemptLead(), self.options.preempt_slice_ns / 2);
        }

        /// False if an M has to do it with the lock.
        pub inline fn requestPreempt(_: *Self, m: *M) bool {
            return Host.requestPreempt(m);
        }

        // ---- parking ----

        /// Before a goroutine puts itself into a queue of waiters.
        pub inline fn prepare(_: *Self, g: *G) void {
            g.claimed = false;
            g.fired = null;
            g.transition(.running, .parking);
        }

        /// Parks the calling goroutine, which `prepare` announced, until somebody claims it and
        /// makes it ready, or until `deadline` (monotonic ns).
        pub fn park(self: *Self, g: *G, reason: g_mod.WaitReason, deadline: ?u64) g_mod.Wake {
            g.reason = reason;
            if (deadline) |when| {
                self.armTimer(g, when) catch {
                    // Without memory for the timer the wait cannot be bounded: end it now.
                    if (self.claim(g, .timeout)) self.ready(g);
                };
                self.leave(g);
                self.disarmTimer(g);
            } else self.leave(g);
            g.reason = .none;
            return g.wake;
        }

        fn armTimer(self: *Self, g: *G, when: u64) Allocator.Error!void {
            g.timer.when = when;
            g.timer.fire = fireTimer;
            try self.timers.add(self.gpa, &g.timer);
            if (!g.system) self.user_timers += 1;
        }

        inline fn disarmTimer(self: *Self, g: *G) void {
            if (!g.timer.pending()) return;
            self.timers.remove(&g.timer);
            if (!g.system) self.user_timers -= 1;
        }

        fn fireTimer(t: *Timer) void {
            const g: *G = @fieldParentPtr("timer", t);
            const self = Host.lane();
            if (!g.system) self.user_timers -= 1;
            if (self.claim(g, .timeout)) self.readyLast(g);
        }

        /// Gives the other goroutines a turn.
        pub fn gosched(self: *Self, g: *G) void {
            const next = self.pickStarted() orelse {
                if (!self.wantsG0()) return;
                g.transition(.running, .runnable);
                return self.switchToG0(g, &self.runq);
            };
            g.transition(.running, .runnable);
            self.switchTo(g, next, &self.runq);
        }

        /// As gosched, at sysmon's request; `g` may have lost its P already.
        pub fn preempt(self: *Self, g: *G) void {
            if (self.running != g) {
                // One that the end of the run left behind just goes on.
                return if (self.owns(g.m.?)) self.regain(g);
            }
            const next = self.pickStarted() orelse {
                if (self.wantsG0()) {
                    g.transition(.running, .runnable);
                    return self.switchToG0(g, &self.runq);
                }
                // Alone: a new slice begins.
                _ = self.bumpTick();
                return;
            };
            g.transition(.running, .runnable);
            g.reason = .preempted;
            self.counters.preemptions += 1;
            self.record(.preempt, g.id, os.nanotime() -| self.sysmon.tick_since, 0);
            self.switchTo(g, next, &self.preempted);
            g.reason = .none;
        }

        /// Leaves a goroutine that parks.
        fn leave(self: *Self, g: *G) void {
            if (self.pickStarted()) |next| {
                self.switchTo(g, next, null);
            } else {
                self.switchToG0(g, null);
            }
        }

        inline fn bumpTick(self: *Self) u64 {
            const t = self.tick.raw +% 1;
            self.tick.store(t, .monotonic);
            return t;
        }

        /// From goroutine to goroutine. `requeue` is where `g` goes if it stays runnable.
        inline fn switchTo(self: *Self, g: *G, next: *G, requeue: ?*g_mod.Queue) void {
            const m = g.m.?;
            self.putOn(m, next);
            Host.swap(m, next);
            self.settle(g, requeue);
            arch.switchTo(&g.sp, next.sp);
        }

        inline fn putOn(self: *Self, m: *M, next: *G) void {
            next.transition(.runnable, .running);
            next.m = m;
            m.curg = next;
            self.running = next;
            _ = self.bumpTick();
            self.counters.switches += 1;
        }

        /// After the host's swap and before the context is saved, without a gap to either: from
        /// here on others may make `g` run.
        inline fn settle(self: *Self, g: *G, requeue: ?*g_mod.Queue) void {
            g.m = null;
            switch (g.status) {
                .parking => g.transition(.parking, .waiting),
                .notified => {
                    g.transition(.notified, .runnable);
                    self.runq.push(g);
                    self.noteWork();
                },
                .runnable => if (requeue) |queue| {
                    queue.push(g);
                    self.noteWork();
                },
                else => os.fatal("goroutine {d} leaves its thread while {t}", .{ g.id, g.status }),
            }
        }

        fn switchToG0(self: *Self, g: *G, requeue: ?*g_mod.Queue) void {
            const m = g.m.?;
            self.dropCurg(m);
            Host.swap(m, null);
            self.settle(g, requeue);
            arch.switchTo(&g.sp, m.sp);
        }

        inline fn dropCurg(self: *Self, m: *M) void {
            if (self.running == m.curg) self.running = null;
            m.curg = null;
            _ = self.bumpTick();
        }

        /// The next goroutine, with a stack to run on. One for which there is no memory is refused:
        /// it ends before it began, and whoever joins it learns why.
        inline fn pickStarted(self: *Self) ?*G {
            while (self.pickNext()) |g| {
                if (g == self.main_g and self.belongsElsewhere(g)) return null;
                if (g.sp != 0 or self.startOn(g)) return g;
            }
            return null;
        }

        /// The main goroutine prefers the main thread, where signals interrupt what it waits for:
        /// the P goes there. On another thread it runs only while a goroutine blocks the main one.
        noinline fn belongsElsewhere(self: *Self, g: *G) bool {
            const m = self.owner.load(.monotonic) orelse return false;
            if (m.main or self.m0.curg != null) return false;
            if (self.runnext) |other| self.runq.push(other);
            self.runnext = g;
            self.to_main_thread = true;
            return true;
        }

        fn startOn(self: *Self, g: *G) bool {
            Host.start(g) catch {
                self.delist(g);
                g.transition(.runnable, .dead);
                Host.refuse(g);
                return false;
            };
            g.sp = arch.prepare(g.stack.lo, g.stack.hi(), entry);
            return true;
        }

        fn entry() callconv(.c) noreturn {
            const self = Host.lane();
            var g = m_mod.current().?.curg.?;
            while (true) {
                Host.runBody(g);
                g = self.exit(g);
            }
        }

        /// Ends `g`. Returns the goroutine that goes on on its stack, if that is a new one.
        fn exit(self: *Self, g: *G) *G {
            const m = g.m.?;
            if (!self.owns(m)) {
                // The run that it belonged to is over; only its thread is left to end.
                if (self.forked and !(m.main and g == self.forked_main)) Host.exitProcess();
                m.curg = null;
                Host.swap(m, null);
                var discard: usize = undefined;
                arch.switchTo(&discard, m.sp);
                unreachable;
            }
            if (g == self.main_g) {
                self.main_done = true;
                if (!m.main) self.wakeMain();
            }
            if (g.status == .syscall) {
                // It ends without a P: nothing to hand on.
                g.transition(.syscall, .running);
                self.found(m);
                g.transition(.running, .dead);
                self.delist(g);
                self.dieTo(g, m, null);
            }
            g.transition(.running, .dead);
            self.delist(g);
            if (!self.main_done) {
                if (self.pickNext()) |next| {
                    if (next.sp == 0 and Host.adopt(g, next)) {
                        self.putOn(m, next);
                        m.state.store(Host.stateOf(next), .monotonic);
                        g.m = null;
                        Host.free(g);
                        return next;
                    }
                    if (next.sp != 0 or self.startOn(next)) {
                        self.putOn(m, next);
                        self.dieTo(g, m, next);
                    }
                }
            }
            self.dieTo(g, m, null);
        }

        fn dieTo(self: *Self, g: *G, m: *M, next: ?*G) noreturn {
            if (next == null) self.dropCurg(m);
            Host.swap(m, next);
            // The stack stays as it is until somebody takes it, which needs the lock we hold.
            g.m = null;
            Host.recycle(g);
            var discard: usize = undefined;
            arch.switchTo(&discard, if (next) |n| n.sp else m.sp);
            unreachable;
        }

        fn wakeMain(self: *Self) void {
            self.m0.note.wake();
            if (self.poller == self.m0) Host.pollBreak();
        }

        // ---- the P ----

        /// The calling goroutine came back from a blocking call and finds its P taken: it gets a
        /// free one, or queues itself and its M stops. As Go's exitsyscall.
        noinline fn regain(self: *Self, g: *G) void {
            const m = g.m.?;
            if (self.owner.load(.monotonic) == null) {
                self.owner.store(m, .release);
                self.found(m);
                g.transition(.syscall, .running);
                self.running = g;
                _ = self.bumpTick();
                sysmon.wake(self);
                return;
            }
            g.transition(.syscall, .runnable);
            m.curg = null;
            Host.swap(m, null);
            // Not sooner: it counts as one that blocks until it is in the queue.
            self.found(m);
            self.settle(g, &self.runq);
            arch.switchTo(&g.sp, m.sp);
        }

        fn found(self: *Self, m: *M) void {
            if (!m.lost.load(.monotonic)) return;
            m.lost.store(false, .monotonic);
            self.lost_count -= 1;
            if (m.main) self.timers.remove(&self.nudge_timer);
        }

        /// Takes the P from its owner, whose goroutine blocks or runs on. False if things moved on
        /// since sysmon looked.
        fn takeOver(self: *Self, m: *M, duty: m_mod.Duty) bool {
            const old = self.owner.load(.monotonic) orelse return false;
            const g = self.running orelse return false;
            if (old == m or self.tick.raw != m.about.tick) return false;
            g.transition(.running, .syscall);
            old.lost.store(true, .monotonic);
            self.lost_count += 1;
            self.running = null;
            self.owner.store(m, .release);
            _ = self.bumpTick();
            if (duty == .hand_off) {
                self.counters.handoffs += 1;
                self.record(.preempt, g.id, os.nanotime() -| m.about.since, 1);
            } else {
                self.counters.retakes += 1;
                self.record(.retake, g.id, os.nanotime() -| m.about.since, 0);
            }
            return true;
        }

        /// Takes the P and runs the lane, unless the goroutine came back while this M waited for the
        /// lock: a lock that was not free at once was held by somebody, most likely by it.
        fn retake(self: *Self, m: *M, duty: m_mod.Duty, asked: u64) void {
            if (!self.live) return;
            const now = os.nanotime();
            const waited = now - asked > prompt_lock_ns and duty == .retake;
            if ((waited and now -| m.about.since < self.options.retake_threshold_idle_ns) or
                !self.takeOver(m, duty)) return self.inVain();
            self.schedule(m);
        }

        fn inVain(self: *Self) void {
            _ = @atomicRmw(u64, &self.counters.retakes_in_vain, .Add, 1, .monotonic);
        }

        /// Gives the P up before a call that is known to block: as Go's entersyscallblock.
        pub fn giveUpP(self: *Self, g: *G) void {
            const m = g.m.?;
            g.transition(.running, .syscall);
            m.lost.store(true, .monotonic);
            self.lost_count += 1;
            self.running = null;
            self.owner.store(null, .release);
            _ = self.bumpTick();
            self.wakeP();
        }

        /// g0's loop: runs goroutines while this M holds the P.
        fn schedule(self: *Self, m: *M) void {
            while (self.owner.load(.monotonic) == m) {
                const g = self.findRunnable(m) orelse return;
                self.putOn(m, g);
                Host.swap(m, g);
                arch.switchTo(&m.sp, g.sp);
            }
        }

        /// The next goroutine, if there is one without waiting.
        inline fn pickNext(self: *Self) ?*G {
            if (self.attention.load(.monotonic)) {
                self.attend();
                if (self.signal_pending) return null;
            }
            self.turn +%= 1;
            if (self.turn % poll_turns == 0) self.pollIfWaiting();
            if (self.runnext) |g| {
                self.runnext = null;
                if (self.turn % next_turns != 0) return g;
                self.runq.push(g);
            }
            const g = self.runq.pop() orelse return self.pickSlow();
            self.warmNext();
            return g;
        }

        /// Among many goroutines the context of the one that runs is in no cache by the time its turn
        /// comes again. That of the next in the queue is fetched while this one runs.
        inline fn warmNext(self: *Self) void {
            const g = self.runq.head orelse return;
            inline for (0..warm_lines) |i| prefetch(g.sp + i * 64);
            Host.prefetch(g);
            // Its own fields come one turn earlier.
            if (g.next) |after| {
                prefetch(@intFromPtr(after));
                prefetch(@intFromPtr(after) + 64);
                prefetch(@intFromPtr(after) + 128);
            }
        }

        inline fn prefetch(address: usize) void {
            @prefetch(@as([*]allowzero const u8, @ptrFromInt(address)), .{});
        }

        fn pickSlow(self: *Self) ?*G {
            if (self.timers.len() > 0) self.runTimers();
            self.pollIfWaiting();
            if (self.runq.pop()) |g| return g;
            const g = self.preempted.pop() orelse return null;
            self.hog_tick.store(self.tick.raw +% 1, .monotonic);
            self.hog_at = os.nanotime();
            return g;
        }

        /// sysmon's requests: timers are due, the network was not looked at, preempted goroutines
        /// have waited.
        noinline fn attend(self: *Self) void {
            self.attention.store(false, .monotonic);
            if (self.timers.len() > 0) self.runTimers();
            if (Host.pollWanted() or Host.signalsWatched()) self.poll();
            // Those that were preempted get a slice in two, however busy the others are.
            const now = os.nanotime();
            if (self.preempted.len > 0 and now -| self.hog_at > 2 * self.options.preempt_slice_ns) {
                self.hog_at = now;
                self.runq.push(self.preempted.pop().?);
            }
        }

        fn runTimers(self: *Self) void {
            const now = os.nanotime();
            while (self.timers.popDue(now)) |t| t.fire(t);
        }

        fn pollIfWaiting(self: *Self) void {
            if (Host.pollWanted()) self.poll();
        }

        noinline fn poll(self: *Self) void {
            if (self.poller != null) return;
            self.last_poll.store(os.nanotime(), .monotonic);
            self.counters.netpolls += 1;
            Host.pollNow();
        }

        /// Work for an M that holds the P, waiting for it if need be. Null when the M has given
        /// the P up or the lane stops.
        fn findRunnable(self: *Self, m: *M) ?*G {
            while (true) {
                if (self.main_done) {
                    self.owner.store(null, .release);
                    if (!m.main) self.wakeMain();
                    return null;
                }
                if (self.signal_pending) self.handleSignals(m);
                if (self.pickStarted()) |g| return g;
                if (self.to_main_thread) {
                    self.to_main_thread = false;
                    if (m.main) continue;
                    self.owner.store(null, .release);
                    self.m0.note.wake();
                    if (self.poller == self.m0) Host.pollBreak();
                    return null;
                }
                if (self.signal_pending) continue;
                if (m.main) Host.onSignal();
                if (self.anyRunnable()) continue;
                if (self.stuck() and Host.onDeadlock()) continue;
                if (self.poller != null) {
                    // Somebody waits in the poller already; it must not oversleep our timers.
                    self.owner.store(null, .release);
                    if (self.timers.earliest.load(.monotonic) < self.poller_deadline)
                        Host.pollBreak();
                    return null;
                }
                if (!m.main and self.mainIsIdle()) {
                    // The main thread waits for work itself: signals arrive there, and libraries
                    // that care about threads expect to be on it.
                    self.owner.store(null, .release);
                    self.sendRunner();
                    return null;
                }
                if (!self.waitForWork(m)) return null;
            }
        }

        /// Waits in the poller without the P and the lock. True if this M has the P afterwards.
        fn waitForWork(self: *Self, m: *M) bool {
            var deadline = self.timers.earliest.load(.monotonic);
            // Only somebody outside can help, and may go away without a word.
            if (self.stuck()) deadline = @min(deadline, os.nanotime() + stuck_recheck_ns);
            self.poller = m;
            self.poller_deadline = deadline;
            self.counters.idle += 1;
            self.owner.store(null, .release);
            Host.release(m);
            const wake = Host.pollWait(deadline);
            Host.acquire(m);
            self.poller = null;
            const free = self.live and self.owner.load(.monotonic) == null;
            if (free) {
                self.owner.store(m, .release);
                sysmon.wake(self);
            }
            self.last_poll.store(os.nanotime(), .monotonic);
            self.counters.netpolls += 1;
            Host.pollResults();
            // The signal may be one that nobody writes to the poller's pipe.
            if (wake == .interrupted) self.handleSignals(m);
            return free;
        }

        /// Only the main thread runs signal handlers.
        fn handleSignals(self: *Self, m: *M) void {
            self.signal_pending = false;
            if (m.main) return Host.onSignal();
            self.signal_for_main = true;
            self.m0.note.wake();
            self.nudges = most_nudges;
            self.nudgeMain();
        }

        /// The kernel gives a signal to any thread, or to the main one just before that one blocks:
        /// neither ends a goroutine's blocking call there, so that the handlers would wait for its
        /// end. The call is interrupted, and once more in case it had not begun.
        fn nudgeMain(self: *Self) void {
            self.timers.remove(&self.nudge_timer);
            if (!self.m0.lost.load(.monotonic)) return;
            os.interrupt(self.m0.thread.?);
            self.nudges -= 1;
            if (self.nudges == 0) return;
            self.nudge_timer.when = os.nanotime() + nudge_interval_ns;
            self.nudge_timer.fire = nudgeAgain;
            self.timers.add(self.gpa, &self.nudge_timer) catch return;
            if (self.poller != null and self.nudge_timer.when < self.poller_deadline) Host.pollBreak();
        }

        fn nudgeAgain(_: *Timer) void {
            Host.lane().nudgeMain();
        }

        /// There is something to do that only g0 can.
        inline fn wantsG0(self: *const Self) bool {
            return self.signal_pending or self.to_main_thread;
        }

        pub inline fn anyRunnable(self: *const Self) bool {
            return self.runnext != null or self.runq.len > 0 or self.preempted.len > 0;
        }

        /// Nothing can ever happen again without help from outside.
        fn stuck(self: *Self) bool {
            return self.user_timers == 0 and self.net_waiters == 0 and self.lost_count == 0 and
                self.user_count > 0 and self.live;
        }

        // ---- threads ----

        fn lockedPop(self: *Self) ?*M {
            const m = self.idle_m orelse return null;
            self.idle_m = m.next_idle;
            m.next_idle = null;
            _ = self.idle_count.fetchSub(1, .monotonic);
            return m;
        }

        fn popIdle(self: *Self) ?*M {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            return self.lockedPop();
        }

        fn wakeM(_: *Self, m: *M, duty: m_mod.Duty, about: m_mod.About) void {
            m.duty = duty;
            m.about = about;
            m.note.wake();
        }

        /// Gives an idle or new M something to do. Needs no lock: sysmon calls it too.
        pub fn startM(self: *Self, duty: m_mod.Duty, about: m_mod.About) Error!void {
            if (self.popIdle()) |m| return self.wakeM(m, duty, about);
            if (self.counters.threads.load(.monotonic) >= self.options.max_threads)
                return error.ThreadLimit;
            const m = try self.gpa.create(M);
            errdefer self.gpa.destroy(m);
            m.* = .{ .duty = duty, .about = about };
            m.note.word.raw = 1;
            m.thread = try os.spawn(threadMain, m, .{ .signals = .{ .mask = self.signal_mask } });
            m.known.store(true, .release);
        }

        fn threadMain(raw: ?*anyopaque) void {
            const m: *M = @ptrCast(@alignCast(raw.?));
            const self = Host.lane();
            self.adoptThread(m) catch os.fatal("no memory for a thread", .{});
            while (self.serve(m)) {}
        }

        /// One duty of an M on the idle list, which is off it afterwards if it is the main one and on
        /// it again otherwise. False when the thread is to end; the M is gone then.
        fn serve(self: *Self, m: *M) bool {
            const rested = m.note.sleep(if (m.main) null else m_idle_ns);
            if (rested != .woken) {
                // Whoever took it off the idle list is about to wake it.
                if (!self.retire(m)) return self.serve(m);
                if (rested == .timeout) return self.endThread(m);
                Host.acquire(m);
                if (self.owns(m)) self.handleSignals(m);
                Host.release(m);
                return m.main or self.comeHome(m);
            }
            m.note.clear();
            const duty = m.duty;
            m.duty = .none;
            switch (duty) {
                .none => {
                    // Only the main M is woken without a duty, and while it is on the idle list.
                    if (!self.retire(m)) return self.serve(m);
                },
                .quit => {
                    Host.acquire(m);
                    self.leaveThread(m); // leaves without the lock
                    return false;
                },
                .run => {
                    Host.acquire(m);
                    self.runner_sent = false;
                    if (self.live and self.owner.load(.monotonic) == null) {
                        self.owner.store(m, .release);
                        sysmon.wake(self);
                        self.schedule(m);
                    }
                    Host.release(m);
                },
                .retake, .hand_off => {
                    if (duty == .hand_off or sysmon.stillBlocked(self, m)) {
                        const asked = os.nanotime();
                        Host.acquire(m);
                        self.sysmon.helpers.store(0, .release);
                        self.retake(m, duty, asked);
                        Host.release(m);
                    } else {
                        self.inVain();
                        self.sysmon.helpers.store(0, .release);
                    }
                },
                .preempt => {
                    Host.acquire(m);
                    self.armPreempt(m.about);
                    Host.release(m);
                    self.sysmon.helpers.store(0, .release);
                },
            }
            if (m.main) {
                if (self.signal_for_main) {
                    Host.acquire(m);
                    self.signal_for_main = false;
                    Host.onSignal();
                    Host.release(m);
                }
                return true;
            }
            return self.comeHome(m);
        }

        /// After a duty, on every M but the main one.
        fn comeHome(self: *Self, m: *M) bool {
            // Where the lane ended meanwhile, nobody will join this thread.
            if (!self.owns(m)) return self.endThread(m);
            self.pushIdle(m);
            // `stop` may wait for this one to come home.
            if (!self.live) self.m0.note.wake();
            return true;
        }

        fn endThread(self: *Self, m: *M) bool {
            // A short life may end before the one who gave it has finished.
            while (!m.known.load(.acquire)) os.sleepNs(std.time.ns_per_us);
            const thread = m.thread.?;
            Host.acquire(m);
            self.leaveThread(m); // leaves without the host's lock
            thread.detach();
            self.freeM(m);
            return false;
        }

        /// Puts a preemption request in the way of the goroutine that sysmon meant, if it is still
        /// where it was.
        fn armPreempt(self: *Self, about: m_mod.About) void {
            const target = find: {
                self.m_lock.lock();
                defer self.m_lock.unlock();
                var it = self.all_m;
                while (it) |m| : (it = m.next_all) {
                    if (m.id == about.m) break :find m;
                }
                return;
            };
            const g = target.curg orelse return;
            if (!self.live or (self.running == g and self.tick.raw != about.tick)) return;
            Host.armPreempt(g);
        }

        /// The main M goes first, so that it is the first to be woken.
        fn pushIdle(self: *Self, m: *M) void {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            const head = self.idle_m;
            if (head != null and head.?.main) {
                m.next_idle = head.?.next_idle;
                head.?.next_idle = m;
            } else {
                m.next_idle = head;
                self.idle_m = m;
            }
            _ = self.idle_count.fetchAdd(1, .monotonic);
        }

        fn mainIsIdle(self: *Self) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            return self.idle_m == self.m0;
        }

        /// Takes an M off the idle list if it is still there.
        fn retire(self: *Self, m: *M) bool {
            self.m_lock.lock();
            defer self.m_lock.unlock();
            var link = &self.idle_m;
            while (link.*) |it| : (link = &it.next_idle) {
                if (it == m) {
                    link.* = m.next_idle;
                    _ = self.idle_count.fetchSub(1, .monotonic);
                    return true;
                }
            }
            return false;
        }

        // ---- events ----

        pub inline fn notesGoroutines(self: *const Self) bool {
            return self.ring.wants(.goroutine_start) or self.ring.wants(.goroutine_exit);
        }

        pub inline fn record(self: *Self, kind: event.Kind, id: u64, a: u64, b: u32) void {
            if (!self.ring.wants(kind)) return;
            self.recordSlow(kind, id, a, b);
        }

        noinline fn recordSlow(self: *Self, kind: event.Kind, id: u64, a: u64, b: u32) void {
            if (!self.ring.push(kind, id, a, b)) return;
            if (self.events_note != null and !self.events_timer.pending()) {
                self.events_timer.when = os.nanotime() + self.options.hooks_flush_interval_ns;
                self.events_timer.fire = flushEvents;
                self.timers.add(self.gpa, &self.events_timer) catch {};
            }
        }

        fn flushEvents(_: *Timer) void {
            Host.lane().wakePump();
        }

        fn wakePump(self: *Self) void {
            const g = self.events_note orelse return;
            self.events_note = null;
            if (self.claim(g, .ready)) self.readyLast(g);
        }

        /// The pump takes what is left and is told that there will be no more.
        pub fn stopEvents(self: *Self) void {
            self.events_stopped = true;
            self.timers.remove(&self.events_timer);
            self.wakePump();
        }

        /// In the child of a fork: the threads are gone, the goroutines with them.
        pub fn forget(self: *Self) void {
            self.* = .{
                .gpa = self.gpa,
                .generation = self.generation +% 1,
                .forked = true,
                .forked_main = self.main_g,
            };
        }
    };
}

/// A short spin lock for lists that are touched for a few instructions; it sleeps when contended.
pub const Lock = struct {
    word: std.atomic.Value(u32) = .init(0),

    pub fn lock(l: *Lock) void {
        if (l.word.cmpxchgStrong(0, 1, .acquire, .monotonic) == null) return;
        while (l.word.swap(2, .acquire) != 0) _ = os.futexWait(&l.word, 2, null);
    }

    pub fn unlock(l: *Lock) void {
        if (l.word.swap(0, .release) == 2) os.futexWake(&l.word, 1);
    }
};
