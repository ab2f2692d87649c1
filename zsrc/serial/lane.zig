//! A serial lane: goroutines that run one at a time, under a lock of their host's.
//!
//! The host is an interpreter with a global lock, or a test's stand-in with a mutex. A thread that
//! holds the host's lock may touch the lane; the run queue, the timers, the channels above it need
//! no atomics of their own. The lane has one P. `owner` is the M that holds it and so runs
//! goroutines; `running` is its goroutine.
//!
//! Switching is direct: the goroutine that parks picks the next one and continues it, without a
//! detour over g0. Only an M with nothing to run goes to g0, gives the P up, leaves the host's lock
//! and waits, either in the poller (one M at most, `poller`) or on its note.
//!
//! A goroutine that blocks in a system call leaves the host's lock by itself; golibx is not told.
//! sysmon sees it (Host.detached) and sends another M to take the P: since taking it needs the
//! host's lock, a retake races with no other thread. The M left behind is `lost` until its
//! goroutine comes back and notices (`here`), then takes a free P or queues its goroutine and
//! stops, as Go's exitsyscall does.
//!
//! The host's swap from one goroutine to another may let other threads run in between (Python
//! 3.12+ releases its lock there). So the leaving goroutine is made runnable or waiting only after
//! the swap, immediately before its context is saved: see `settle`.
const std = @import("std");
const os = @import("../os/os.zig");
const arch = @import("../arch/arch.zig");
const event = @import("../event/event.zig");
const tunables_mod = @import("../core/tunables.zig");
const g_mod = @import("g.zig");
const m_mod = @import("m.zig");
const stack_mod = @import("stack.zig");
const timer_mod = @import("timer.zig");
const latency_mod = @import("latency.zig");
const sysmon = @import("sysmon.zig");
const inbox = @import("inbox.zig");
const context = @import("context.zig");
const explore = @import("explore.zig");
const ranks = @import("ranks.zig");

const G = g_mod.G;
const M = m_mod.M;
const Timer = timer_mod.Timer;
const Allocator = std.mem.Allocator;
pub const Lock = @import("lock.zig").Lock;

/// What holds for a run as a whole; what may change meanwhile is in core/tunables.zig. Durations in
/// nanoseconds, sizes in bytes.
pub const Options = struct {
    preempt_async: bool = true,
    retake_enabled: bool = true,
    max_threads: u32 = 10_000,
    stack_size: usize = 1 << 20,
    stack_main_size: usize = 8 << 20,
    stack_keep: usize = 64 << 20,
    /// The lowest part of a stack is a reserve: see stack.zig.
    stack_reserves: bool = false,
    hooks_flush_interval_ns: u64 = 10 * std.time.ns_per_ms,
    hooks_ring_size: usize = 16 * 1024,
    /// Shorter waits for the host's lock are no events.
    hooks_gil_wait_min_ns: u64 = std.time.ns_per_ms,
    event_mask: u32 = 0,
    seed: u64 = 0,
    /// For tests, see explore.zig: `seed` decides which goroutine runs next.
    explore: bool = false,
    /// Also that goroutines give way in calls; for the layer above.
    explore_calls: bool = false,
    /// And that in virtual time a timer may fire though goroutines could run.
    explore_timers: bool = true,
    /// It follows lane.script, and where that ends all goes by itself; the seed draws nothing then.
    explore_follows: bool = false,
    /// Another run of the same kind follows, most likely: see resting.zig.
    keep: bool = false,
    /// For tests: the goroutines' clock stands still, and jumps when all of them sleep.
    virtual_time: bool = false,
};

/// Plain counters are written under the lock, atomic ones by sysmon.
pub const Counters = struct {
    spawns: u64 = 0,
    switches: u64 = 0,
    preemptions: u64 = 0,
    handoffs: u64 = 0,
    retakes: u64 = 0,
    retakes_in_vain: u64 = 0,
    /// How often the host's lock was let go for threads that waited for it.
    lock_offers: u64 = 0,
    netpolls: u64 = 0,
    netpoll_wakeups: u64 = 0,
    idle: u64 = 0,
    /// How often a goroutine that was switched out kept its thread, and how often one that should
    /// have could not, as there was none for the others.
    threads_kept: u64 = 0,
    threads_not_kept: u64 = 0,
    preempt_requests: std.atomic.Value(u64) = .init(0),
    threads: std.atomic.Value(u32) = .init(0),
    /// How often sysmon saw goroutines that could run and had no thread.
    threads_awaited: std.atomic.Value(u64) = .init(0),
};

/// What can be told of a goroutine without the host's lock.
pub const Attachment = enum {
    /// It holds the lock, or its M has none on it.
    attached,
    /// It has left the lock: it blocks, or it waits for the lock.
    detached,
    /// As detached, and another thread holds the lock.
    unsure,
};

/// What the parts that are explored have of the machine.
const Real = struct {
    pub const G = g_mod.G;
    pub const M = m_mod.M;
    pub const Thread = os.Thread;
    pub const FaultStack = os.FaultStack;
    pub const current = m_mod.current;
    pub const setCurrent = m_mod.setCurrent;
    pub const spawn = os.spawn;
    pub const nanotime = os.nanotime;
    pub const sleepNs = os.sleepNs;
    /// One that is seen without the host's lock so many times in a row is in a blocking call.
    pub const glances = 20;
};

pub fn Lane(comptime Host: type) type {
    return struct {
        const Self = @This();

        gpa: Allocator,
        options: Options = .{},
        comptime tunables: *tunables_mod.Tunables = &tunables_mod.current,
        stacks: stack_mod.Pool = undefined,
        /// Between runs: goroutines that were given up have some of them.
        stacks_kept: bool = false,

        // The P.
        runq: g_mod.Queue = .{},
        runnext: ?*G = null,
        /// Goroutines that were preempted: they run when nothing else can, or when sysmon says that
        /// they waited long enough.
        preempted: g_mod.Queue = .{},
        /// Those that go before all others, and after them: ranks.zig.
        high: g_mod.Queue = .{},
        low: g_mod.Queue = .{},
        /// Since when sysmon has seen a goroutine in `low`; 0: it has not yet.
        low_since: u64 = 0,
        /// One that is not low is about to be preempted. The goroutines in `low` are no reason for
        /// that.
        spares_low: bool = false,
        timers: timer_mod.Heap = .{},
        /// Timers that will wake goroutines of the program's own.
        user_timers: usize = 0,
        ring: event.Ring = .{},
        /// Of sysmon, which does not hold the P; empty unless its events are wanted.
        sysmon_ring: event.Ring = .{},
        /// Counts the goroutines that were put on the P, for sysmon.
        tick: std.atomic.Value(u64) = .init(0),
        /// The tick of a goroutine that was preempted before, and runs because nothing else could.
        hog_tick: std.atomic.Value(u64) = .init(0),
        /// The tick of the turn that one which was preempted before had last, and when that began:
        /// written first.
        hog_turn: std.atomic.Value(u64) = .init(0),
        hog_turn_at: std.atomic.Value(u64) = .init(0),
        /// While others wait, such ones do until then.
        hogs_due: u64 = 0,
        turn: u32 = 0,
        /// The turn in which a look at the network came last and found no goroutine.
        turn_in_vain: u32 = 0,
        running: ?*G = null,
        owner: std.atomic.Value(?*M) = .init(null),
        poller: ?*M = null,
        /// An M is on its way to take the free P.
        runner_sent: bool = false,
        /// Ms on a reserve's duty, and when there was reason for them last.
        reserves: usize = 0,
        reinforced_at: u64 = 0,
        /// The last turn in which sysmon saw the goroutine block, and since when: written first.
        blocked_tick: std.atomic.Value(u64) = .init(std.math.maxInt(u64)),
        blocked_since: std.atomic.Value(u64) = .init(0),
        spinning: os.Rest = .{},
        /// When the poller will return by itself.
        poller_deadline: u64 = 0,

        /// A turn of `attend` is wanted: something was posted, or sysmon `asked`.
        attention: std.atomic.Value(bool) = .init(false),
        asked: std.atomic.Value(bool) = .init(false),
        /// Other threads have waited long enough for the host's lock.
        lock_wanted: std.atomic.Value(bool) = .init(false),
        /// The host's lock is with others for a moment; the P is not.
        offering: bool = false,
        /// When it last was.
        offered_at: std.atomic.Value(u64) = .init(0),
        last_poll: std.atomic.Value(u64) = .init(0),
        /// Monotonic ns, late by a round of sysmon's at most: for what need not be exact.
        clock: std.atomic.Value(u64) = .init(0),
        /// The time of goroutines, where that is not the real one; else 0.
        virtual_ns: u64 = 0,
        chooser: explore.Chooser = .{},
        /// Outlives the run: a caller may ask afterwards what was chosen.
        script: explore.Script = .{},
        /// It has chosen the next goroutine already.
        chosen: bool = false,
        /// The turn at which one last went behind all others: goLast.
        behind_since: u32 = 0,

        // All goroutines and threads.
        all_g: ?*G = null,
        user_count: usize = 0,
        next_id: u64 = 1,
        main_g: ?*G = null,
        main_done: bool = false,
        /// One that the host has not go on before it calls `letGo`: the main goroutine, while its
        /// signal handlers run. And whether it was picked meanwhile.
        held: ?*G = null,
        held_waits: bool = false,
        /// Between start and stop.
        live: bool = false,
        /// Between two runs of one kind: what the lane has is kept.
        rests: bool = false,
        /// Ms with a goroutine that is in a blocking call without a P.
        lost_count: usize = 0,
        /// How many those were when a preempted goroutine last went before others for their sake.
        convoy_base: usize = 0,
        /// Goroutines of the program's own that wait for the network.
        net_waiters: usize = 0,
        /// Those of the program's own that wait for code outside of the lane, which will post.
        outside_waiters: usize = 0,
        /// Guards the lists of Ms, which sysmon uses without the host's lock.
        m_lock: Lock = .{},
        idle_m: ?*M = null,
        idle_count: std.atomic.Value(u32) = .init(0),
        /// No M could be sent to take the free P: the next one that comes home takes it. Under
        /// m_lock; sysmon looks without.
        runner_owed: bool = false,
        /// sysmon's own: since when, and whether the program was told.
        owed_since: u64 = 0,
        debt_said: bool = false,
        /// Ms that are about to end, of those that are counted.
        dismissed: u32 = 0,
        all_m: ?*M = null,
        next_m_id: u32 = 0,
        /// Tells the Ms of this run from those an earlier one had to leave behind.
        generation: u32 = 0,
        /// The M of the thread that called `run`.
        m0: *M = undefined,
        /// The program's, which all Ms have, those too that sysmon starts: a signal that it blocks
        /// comes to none of them, and children that goroutines fork inherit it. Under `m_lock`.
        signal_mask: os.SignalMask = undefined,
        /// How often it was changed.
        mask_turn: u32 = 0,
        /// Signal handlers of the program's wait for the main thread.
        signal_pending: bool = false,
        signal_for_main: bool = false,
        /// How many more times the main thread's blocking call has to be interrupted for them.
        nudges: u32 = 0,
        nudge_timer: Timer = .{},
        /// The thread that gets the P, for the goroutine that is next.
        to_thread: ?*M = null,
        /// Some were refused: g0 has the host end them.
        refused: bool = false,
        /// Goroutines that are locked to threads.
        locked_count: u32 = 0,
        sysmon: sysmon.State = .{},
        counters: Counters = .{},
        latency: latency_mod.Latency = .{},
        events_note: ?*G = null,
        /// Its ring is half full: the pump has to be woken.
        events_hurry: bool = false,
        /// When the last goroutine was noted to park, as os/counter.zig has it.
        parked_ticks: u64 = 0,
        events_timer: Timer = .{},
        events_stopped: bool = false,

        pub const Error = error{ OutOfMemory, ThreadLimit };

        // ---- life of a lane ----

        /// Runs goroutine `main` and all it starts; returns when it has finished. Called with the
        /// host's lock, on the thread that becomes the first M.
        pub fn run(self: *Self, options: Options, main: *G) Error!void {
            std.debug.assert(!self.live);
            const m = try self.start(options);
            self.main_g = main;
            main.placed = true;
            self.enlist(main);
            self.ready(main);
            while (true) {
                self.schedule(m);
                if (self.main_done) break;
                if (m.locked_g == null) self.pushIdle(m);
                Host.release(m);
                _ = self.serve(m);
                Host.acquire(m);
                if (self.main_done) break;
                if (m.locked_g != null) continue;
                // It may have been woken for this beside its duty: see belongsElsewhere.
                if (self.owner.load(.monotonic) == null and self.anyRunnable()) sysmon.own(self, m);
            }
            if (!self.rest(m)) self.stop(m);
            self.gpa.destroy(m);
        }

        /// Returns the calling thread's M, which has the P.
        fn start(self: *Self, options: Options) Error!*M {
            const gpa = self.gpa;
            const warm = self.wakesFor(options);
            if (!warm) {
                self.endRest();
                try self.allocate(options);
            }
            errdefer if (warm) self.restAgain() else self.dispose();
            self.clock.store(os.nanotime(), .monotonic);
            if (options.virtual_time) self.virtual_ns = explore.firstOf(self.clock.raw);
            if (options.explore) {
                self.chooser = .init(gpa, &self.script, options.seed, options.explore_follows);
                if (options.explore_calls) self.chooser.withHead(options.seed);
                self.chooser.early_timers = options.explore_timers;
                self.attention.raw = true;
            }
            const m = try gpa.create(M);
            errdefer gpa.destroy(m);
            m.* = .{ .main = true, .thread = os.thisThread() };
            self.m0 = m;
            self.signal_mask = os.signalMask();
            self.counters.threads.raw = 1;
            self.enlistM(m);
            self.adoptThread(m) catch |e| {
                self.unlistM(m);
                return e;
            };
            self.live = true;
            sysmon.own(self, m);
            errdefer {
                self.live = false;
                self.leaveThread(m);
                m_mod.setCurrent(null);
            }
            if (!warm) try sysmon.start(self);
            return m;
        }

        fn allocate(self: *Self, options: Options) Error!void {
            const gpa = self.gpa;
            const keep = @max(1, options.stack_keep / (2 * os.page_size));
            const kept = if (self.stacks_kept and self.stacks.size == options.stack_size)
                self.stacks
            else
                null;
            self.* = .{
                .gpa = gpa,
                .options = options,
                .generation = self.generation +% 1,
                .script = self.script,
            };
            self.stacks = kept orelse .init(gpa, options.stack_size, keep);
            self.stacks.keep = keep;
            if (options.stack_reserves)
                self.stacks.reserve_size = stack_mod.reserveSize(options.stack_size);
            self.ring = try .init(gpa, options.hooks_ring_size);
            errdefer self.ring.deinit(gpa);
            self.ring.locked = true; // the host's lock
            self.ring.setMask(options.event_mask);
            if (self.ring.wants(.sysmon_tick))
                self.sysmon_ring = try .init(gpa, options.hooks_ring_size);
        }

        /// At the end of a run, when they are not used any more. Stacks that goroutines were left
        /// on are kept.
        pub fn dispose(self: *Self) void {
            self.stacks_kept = self.stacks.in_use != 0;
            if (!self.stacks_kept) self.stacks.deinit();
            self.timers.deinit(self.gpa);
            self.ring.deinit(self.gpa);
            self.sysmon_ring.deinit(self.gpa);
        }

        // ---- what time it is ----

        /// Monotonic ns by which goroutines sleep, time out and have their timers fire.
        pub inline fn now(self: *const Self) u64 {
            return if (self.virtual_ns == 0) os.nanotime() else self.virtual_ns;
        }

        /// Monotonic ns for what depends on how long the processor was used. The same seed has to
        /// decide the same: in an explored run each turn of a goroutine takes a microsecond.
        pub inline fn pace(self: *const Self) u64 {
            return if (self.options.explore)
                (@as(u64, self.turn) + 1) * std.time.ns_per_us
            else
                os.nanotime();
        }

        // ---- the end of a run, in ending.zig and resting.zig ----

        const ending = @import("ending.zig").Ending(Self, Host, Real);
        const stop = ending.stop;
        const resting = @import("resting.zig").Resting(Self, Host, Real);
        const rest = resting.rest;
        const wakesFor = resting.wakesFor;
        const restAgain = resting.restAgain;
        pub const endRest = resting.endRest;
        pub const leaveStray = ending.leaveStray;
        pub const stray = ending.stray;
        pub const freeze = ending.freeze;

        // ---- the caller ----

        /// The goroutine that calls, holding the P; null if the caller is none. A goroutine that
        /// lost its P gets one here, or waits in the run queue until it does.
        ///
        /// Also notes whether the goroutine may be switched out just like that: a call that comes
        /// straight from where it last did lies at the same place of its stack. See keeping.zig.
        pub inline fn here(self: *Self) ?*G {
            const frame = @frameAddress();
            if (self.running) |g| {
                if (g.isPlain(frame)) {
                    g.deep = false;
                    return g;
                }
                if (g.deep_frame == frame) {
                    g.deep = true;
                    return g;
                }
            }
            return self.hereSlow(frame);
        }

        /// As `here`, if the goroutine has the P and may be switched out just like that. Null if
        /// that takes a closer look: `here` does.
        pub inline fn hereIfPlain(self: *Self) ?*G {
            const g = self.running orelse return null;
            const frame = @frameAddress();
            const moves = g.isPlain(frame) or
                // A call of one that is locked to its thread never counts as plain: see `leave`.
                (g.deep_frame == frame and g.locked_m == null and Host.callsAsBefore(g, frame));
            if (!moves) return null;
            g.deep = false;
            return g;
        }

        noinline fn hereSlow(self: *Self, frame: usize) ?*G {
            if (self.running) |g| {
                if (g.stack.contains(frame)) {
                    g.deep = true;
                    if (frame != g.near_frame) g.deep_frame = frame;
                    return g;
                }
            }
            const m = m_mod.current() orelse return null;
            const g = m.curg orelse return null;
            if (!self.owns(m)) return null;
            g.deep = g.plain_frame != frame;
            if (!g.stack.contains(arch.stackPointer())) {
                // Another library switched stacks inside the goroutine; it is still the goroutine,
                // unless this is g0 with a goroutine left on the M, which cannot be.
                return if (self.running == g) g else null;
            }
            // The switch that brings it back may let the host's lock go, and another M retake the
            // P.
            while (self.running != g) self.regain(g);
            return g;
        }

        /// The goroutine that calls, if it has the P and is on its own stack. Null tells nothing.
        pub inline fn hereOnStack(self: *const Self) ?*G {
            const g = self.running orelse return null;
            return if (g.stack.contains(@frameAddress())) g else null;
        }

        /// The goroutine on this thread, whether or not it holds the P.
        pub fn onThread(self: *Self) ?*G {
            const m = m_mod.current() orelse return null;
            return if (self.owns(m)) m.curg else null;
        }

        /// Whether this M belongs to the present run and not to one that has ended.
        pub inline fn owns(self: *Self, m: *M) bool {
            return self.live and m.generation == self.generation;
        }

        // ---- goroutines ----

        fn enlist(self: *Self, g: *G) void {
            g.environment = arch.environment();
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
            if (self.ring.times() and !g.system) self.time(g);
            g.transition(.idle, .runnable);
            if (g.rank == .normal) self.runq.push(g) else self.queueRanked(g);
            self.noteWork();
        }

        /// As `go`, before all others, on behalf of the main goroutine.
        pub fn goFirst(self: *Self, g: *G) void {
            self.enlist(g);
            if (self.main_g) |main| g.environment = main.environment;
            self.counters.spawns += 1;
            g.transition(.idle, .runnable);
            self.goNext(g);
            self.noteWork();
        }

        /// Undoes `held`.
        pub fn letGo(self: *Self) void {
            const g = self.held orelse return;
            self.held = null;
            if (!self.held_waits) return;
            self.held_waits = false;
            self.goNext(g);
            self.noteWork();
        }

        /// Makes a goroutine that waits, or is about to, runnable. The caller has claimed it.
        pub inline fn ready(self: *Self, g: *G) void {
            if (self.ring.wants(.goroutine_ready)) self.noteReady(g, self.waker());
            switch (g.status) {
                .parking => return notify(g),
                .idle => g.transition(.idle, .runnable),
                else => g.transition(.waiting, .runnable),
            }
            if (g.rank == .normal) self.goNext(g) else self.queueRanked(g);
            self.noteWork();
        }

        /// As `ready`, at the end of the queue: for those woken by the poller or a timer.
        pub inline fn readyLast(self: *Self, g: *G) void {
            if (self.ring.wants(.goroutine_ready)) self.noteReady(g, 0);
            if (g.status == .parking) return notify(g);
            g.transition(.waiting, .runnable);
            if (g.rank == .normal) self.runq.push(g) else self.queueRanked(g);
            self.noteWork();
        }

        /// Of one that has not left its stack yet, or blocks on it: a thread.
        noinline fn notify(g: *G) void {
            g.transition(.parking, .notified);
            if (g.thread) |note| note.wake();
        }

        /// Claims a wait: true for the first that asks, which has to wake the waiter.
        pub inline fn claim(_: *Self, g: *G, wake: g_mod.Wake) bool {
            return g.claim(wake);
        }

        /// Between `prepare` and `park`: from here on a thread without the lock may end the wait
        /// too, by changing `contest` from 0 to 1. It then has a thread with the lock call
        /// `arrive`.
        pub fn contest(_: *Self, g: *G, word: *std.atomic.Value(u32)) void {
            g.contest = word;
            g.claimed = .contested;
        }

        /// A contested wait was claimed from outside. With the lock.
        pub fn arrive(self: *Self, g: *G, wake: g_mod.Wake, fired: ?*anyopaque) void {
            std.debug.assert(g.claimed == .contested);
            g.claimed = .taken;
            g.wake = wake;
            g.fired = fired;
            self.readyLast(g);
        }

        inline fn noteWork(self: *Self) void {
            if (self.owner.load(.monotonic) == null) self.wakeP();
        }

        /// There is work and no M holds the P: as Go's wakep.
        pub noinline fn wakeP(self: *Self) void {
            if (!self.live) return;
            if (self.poller != null) return Host.pollBreak();
            self.sendRunner();
        }

        /// Has the entry arrive soon. Any thread, without the lock: see inbox.zig. It may be gone
        /// when this returns.
        pub fn post(self: *Self, posted: *inbox.Entry) void {
            Host.inbox.post(posted, &self.attention, Host.pollBreak);
        }

        /// The poller tells of it. With the lock.
        pub fn signalCame(self: *Self) void {
            self.signal_pending = true;
            Host.signalCame();
        }

        // ---- what sysmon asks, without the lock ----

        pub fn askAttention(self: *Self) void {
            self.asked.store(true, .monotonic);
            self.attention.store(true, .release);
        }

        /// Has the host's lock offered to others at the next turn.
        pub fn askForLock(self: *Self) void {
            self.lock_wanted.store(true, .monotonic);
            self.askAttention();
        }

        /// How often that has to be done; maxInt if the host's lock sees to its waiters itself.
        pub inline fn offerInterval(self: *Self) u64 {
            const own = Host.offerInterval();
            const wanted = self.tunables.offer_interval_ns.get();
            return if (wanted == 0 or own == std.math.maxInt(u64)) own else wanted;
        }

        /// Whether goroutines wait for the P, as far as can be told without the lock.
        pub fn othersRunnable(self: *Self) bool {
            return @atomicLoad(usize, &self.runq.len, .monotonic) > 0 or
                @atomicLoad(usize, &self.high.len, .monotonic) > 0 or
                @atomicLoad(?*G, &self.runnext, .monotonic) != null or !Host.inbox.isEmpty();
        }

        pub fn hogsWait(self: *Self) bool {
            return @atomicLoad(usize, &self.preempted.len, .monotonic) > 0 or
                @atomicLoad(usize, &self.low.len, .monotonic) > 0;
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
            return @min(Host.preemptLead(), self.tunables.preempt_slice_ns.get() / 2);
        }

        /// False if an M has to do it with the lock.
        pub inline fn requestPreempt(_: *Self, m: *M) bool {
            return Host.requestPreempt(m);
        }

        // ---- parking ----

        /// Before a goroutine puts itself into a queue of waiters.
        pub inline fn prepare(_: *Self, g: *G) void {
            g.claimed = .open;
            g.transition(.running, .parking);
        }

        /// Parks the calling goroutine, which `prepare` announced, until a waker claims it and
        /// makes it ready, until `deadline` (monotonic ns), or until its context is done.
        pub inline fn park(
            self: *Self,
            g: *G,
            reason: g_mod.WaitReason,
            deadline: ?u64,
        ) g_mod.Wake {
            const when = deadline orelse return self.parkForLong(g, reason);
            return self.parkUntil(g, reason, when);
        }

        noinline fn parkForLong(self: *Self, g: *G, reason: g_mod.WaitReason) g_mod.Wake {
            return self.parkHere(g, reason);
        }

        /// As `park`, without a deadline, inlined into the caller.
        pub inline fn parkHere(self: *Self, g: *G, reason: g_mod.WaitReason) g_mod.Wake {
            if (g.isSpecial()) return self.parkUntil(g, reason, null);
            g.reason = reason;
            g.parked_at = self.clock.raw;
            if (self.ring.wants(.goroutine_park)) self.notePark(g);
            self.leave(g);
            g.reason = .none;
            g.waiting_on = null;
            return g.wake;
        }

        noinline fn parkUntil(
            self: *Self,
            g: *G,
            reason: g_mod.WaitReason,
            deadline: ?u64,
        ) g_mod.Wake {
            g.reason = reason;
            if (g.thread != null) return blockThread(g, deadline);
            if (g.context) |c| self.watchContext(c, g);
            g.parked_at = self.clock.raw;
            if (self.ring.wants(.goroutine_park)) self.notePark(g);
            if (deadline) |when| {
                self.armTimer(g, when) catch {
                    // Without memory for the timer the wait cannot be bounded: end it now.
                    if (self.claim(g, .timeout)) self.ready(g);
                };
            }
            self.leave(g);
            self.disarmTimer(g);
            context.unwatch(g);
            g.reason = .none;
            g.waiting_on = null;
            return g.wake;
        }

        /// As `park`, for the stand-in of the calling thread.
        noinline fn blockThread(g: *G, deadline: ?u64) g_mod.Wake {
            Host.block(g, deadline);
            g.status = .running;
            g.reason = .none;
            g.waiting_on = null;
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

        fn fireTimer(t: *Timer) callconv(.c) void {
            const g: *G = @fieldParentPtr("timer", t);
            const self = Host.lane();
            if (!g.system) self.user_timers -= 1;
            if (!self.claim(g, .timeout)) return;
            self.readyLast(g);
            // Virtual time is that of another clock.
            if (g.timed and self.virtual_ns == 0) recording.timeSince(g, t.when);
        }

        /// The lane that there is: for timers that fire.
        pub inline fn get() *Self {
            return Host.lane();
        }

        /// Has `t.fire` called at `t.when`. `hope` says whether that may wake a goroutine of the
        /// program's own: the lane is not stuck until it has. Also from threads that are no M.
        pub fn addTimer(self: *Self, t: *Timer, hope: bool) Allocator.Error!void {
            try self.timers.add(self.gpa, t);
            if (hope) self.user_timers += 1;
            if (self.poller != null and t.when < self.poller_deadline) Host.pollBreak();
        }

        /// Undoes it; `hope` is what it was then.
        pub fn removeTimer(self: *Self, t: *Timer, hope: bool) void {
            self.timers.remove(t);
            if (hope) self.user_timers -= 1;
        }

        /// Gives the other goroutines a turn.
        pub fn gosched(self: *Self, g: *G) void {
            self.goschedHere(g);
        }

        /// The same, inlined into the caller.
        pub inline fn goschedHere(self: *Self, g: *G) void {
            if (g.deep and self.keepsThread(g)) return self.goschedKept(g);
            if (g.rank == .low) return self.goschedLow(g);
            const next = self.pickStarted();
            if (next == null and !self.wantsG0()) return;
            g.transition(.running, .runnable);
            if (next) |n| self.switchTo(g, n, &self.runq) else self.switchToG0(g, &self.runq);
        }

        /// Apart, so that the others' queue is one that is known.
        noinline fn goschedLow(self: *Self, g: *G) void {
            const next = self.pickStarted();
            if (next == null and !self.wantsG0()) return;
            g.transition(.running, .runnable);
            const queue = self.queueOf(g);
            if (next) |n| self.switchTo(g, n, queue) else self.switchToG0(g, queue);
        }

        /// As gosched, until no other goroutine can go on. For the runtime's own waits for what
        /// others do: these are no part of the order that an explored run looks at.
        pub fn goLast(self: *Self, g: *G) void {
            if (g.deep and self.keepsThread(g)) return self.goschedKept(g);
            const next = self.pickStarted();
            if (next == null and !self.wantsG0()) return;
            self.behind_since = self.turn;
            g.transition(.running, .runnable);
            if (next) |n|
                self.switchTo(g, n, &self.preempted)
            else
                self.switchToG0(g, &self.preempted);
        }

        fn goschedKept(self: *Self, g: *G) void {
            if (!self.othersWait() or !self.keepThread(g)) return;
            g.transition(.running, .runnable);
            self.switchToG0(g, self.queueOf(g));
            self.freeThread(g);
        }

        /// As gosched, at sysmon's request; `g` may have lost its P already.
        pub fn preempt(self: *Self, g: *G) void {
            g.deep = true;
            if (self.running != g) {
                // One that the end of the run left behind just goes on.
                return if (self.owns(g.m.?)) self.regain(g);
            }
            if (g.slice_ns != 0 and self.hasLongerSlice(g, os.nanotime())) return;
            const keeps = self.keepsThread(g);
            if (keeps and !(self.othersWait() and self.keepThread(g))) {
                _ = self.bumpTick();
                return;
            }
            self.spares_low = g.rank != .low;
            const next = if (keeps) null else self.pickStarted();
            self.spares_low = false;
            if (next == null and !keeps and !self.wantsG0()) {
                // Alone: a new slice begins.
                _ = self.bumpTick();
                return;
            }
            g.transition(.running, .runnable);
            g.reason = .preempted;
            self.counters.preemptions += 1;
            const at = os.nanotime();
            const ran = self.hasRun(g, at);
            self.putOffHogs(at, ran);
            self.record(.preempt, g.id, ran, 0);
            const queue = self.queueOfPreempted(g);
            if (next) |n| self.switchTo(g, n, queue) else self.switchToG0(g, queue);
            if (keeps) self.freeThread(g);
            g.reason = .none;
        }

        /// Leaves a goroutine that parks.
        inline fn leave(self: *Self, g: *G) void {
            if (g.deep and self.keepsThread(g)) return self.leaveKept(g);
            if (self.pickStarted()) |next| {
                self.switchTo(g, next, null);
            } else {
                self.switchToG0(g, null);
            }
        }

        noinline fn leaveKept(self: *Self, g: *G) void {
            // Where no thread can be got for the others, it goes on on any thread.
            _ = self.keepThread(g);
            self.switchToG0(g, null);
            self.freeThread(g);
        }

        pub inline fn bumpTick(self: *Self) u64 {
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

        pub inline fn putOn(self: *Self, m: *M, next: *G) void {
            next.transition(.runnable, .running);
            next.m = m;
            m.curg = next;
            self.running = next;
            _ = self.bumpTick();
            self.counters.switches += 1;
        }

        /// After the host's swap and before the context is saved, without a gap to either: from
        /// here on others may make `g` run.
        pub inline fn settle(self: *Self, g: *G, requeue: ?*g_mod.Queue) void {
            g.m = null;
            if (requeue) |queue| {
                if (g.status != .runnable) return self.settleWoken(g);
                queue.push(g);
                self.noteWork();
            } else if (g.status == .parking) {
                g.transition(.parking, .waiting);
            } else self.settleWoken(g);
        }

        noinline fn settleWoken(self: *Self, g: *G) void {
            switch (g.status) {
                .notified => {
                    g.transition(.notified, .runnable);
                    if (g.rank == .normal) self.runq.push(g) else self.queueRanked(g);
                    self.noteWork();
                },
                .runnable => {},
                else => os.fatal("goroutine {d} leaves its thread while {t}", .{ g.id, g.status }),
            }
        }

        /// As `settle`, of one that is high or low and waits for the P.
        pub noinline fn settleRanked(self: *Self, g: *G) void {
            g.m = null;
            if (g.status != .runnable) return self.settleWoken(g);
            self.requeueRanked(g);
            self.noteWork();
        }

        pub fn switchToG0(self: *Self, g: *G, requeue: ?*g_mod.Queue) void {
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
        /// it ends before it began, on g0, and a goroutine that joins it learns why.
        pub inline fn pickStarted(self: *Self) ?*G {
            const g = self.pickNext() orelse return null;
            if (g.placed and self.belongsElsewhere(g)) return null;
            return if (g.sp != 0 or self.startOn(g)) g else null;
        }

        fn startOn(self: *Self, g: *G) bool {
            Host.start(g) catch {
                self.delist(g);
                g.transition(.runnable, .dead);
                if (g == self.main_g) self.main_done = true;
                Host.refuse(g);
                self.refused = true;
                return false;
            };
            g.sp = arch.prepare(g.stack.lo, Host.stackTop(g), entry, g.environment);
            return true;
        }

        pub fn entry() callconv(.c) noreturn {
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
                self.leaveStray(m, g);
            }
            if (g == self.main_g) {
                self.main_done = true;
                // No other goroutine is put on the P from here on.
                self.attention.store(true, .release);
                if (!m.main) self.wakeMain();
            }
            if (g.lock_count > 0) self.exitLocked(g);
            if (g.status == .syscall) {
                // It ends without a P: nothing to hand on.
                g.transition(.syscall, .running);
                self.found(m);
                self.noteUnblock(g, os.nanotime());
                g.transition(.running, .dead);
                self.delist(g);
                self.dieTo(g, m, null);
            }
            g.transition(.running, .dead);
            self.delist(g);
            if (!self.main_done and !m.ending) {
                if (self.pickNext()) |next| {
                    if (next.placed and self.belongsElsewhere(next)) self.dieTo(g, m, null);
                    if (next.sp == 0 and Host.adopt(g, next)) {
                        self.putOn(m, next);
                        m.state.store(Host.stateOf(next), .monotonic);
                        g.m = null;
                        Host.free(g);
                        arch.setEnvironment(next.environment);
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
            // The stack stays as it is until another goroutine takes it, which needs the lock we
            // hold.
            g.m = null;
            Host.recycle(g);
            var discard: usize = undefined;
            arch.switchTo(&discard, if (next) |n| n.sp else m.sp);
            unreachable;
        }

        pub fn wakeMain(self: *Self) void {
            self.m0.note.wake();
            if (self.poller == self.m0) Host.pollBreak();
        }

        // ---- the P, in processor.zig ----

        const processor = @import("processor.zig").Processor(Self, Host);
        pub const regain = processor.regain;
        pub const offerLock = processor.offerLock;
        pub const schedule = processor.schedule;
        pub const giveWay = processor.giveWay;
        pub const goNext = processor.goNext;
        pub const pickNext = processor.pickNext;
        pub const attend = processor.attend;
        pub const putOffHogs = processor.putOffHogs;
        pub const takeTied = processor.takeTied;
        pub const handleSignals = processor.handleSignals;
        pub const wantsG0 = processor.wantsG0;
        pub const anyRunnable = processor.anyRunnable;

        // ---- priorities, in ranks.zig ----

        const in_ranks = ranks.Ranks(Self, struct {
            pub const others = ranks.others_turns;
        });
        const queueRanked = in_ranks.queueRanked;
        const requeueRanked = in_ranks.requeueRanked;
        const queueOf = in_ranks.queueOf;
        const queueOfPreempted = in_ranks.queueOfPreempted;
        const hasRun = in_ranks.hasRun;
        const hasLongerSlice = in_ranks.hasLongerSlice;
        pub const judge = in_ranks.judge;
        pub const keepAttention = in_ranks.keepAttention;
        pub const pickHigh = in_ranks.pickHigh;
        pub const pickLast = in_ranks.pickLast;
        pub const letLowJoin = in_ranks.letLowJoin;
        pub const joinWhenDue = in_ranks.joinWhenDue;

        /// How many wait for their turn.
        pub fn runnable(self: *const Self) usize {
            return @intFromBool(self.runnext != null) + self.runq.len + self.preempted.len +
                self.high.len + self.low.len;
        }

        /// Takes effect when the goroutine next waits for its turn.
        pub fn setPriority(_: *Self, g: *G, priority: g_mod.Priority) void {
            g.priority = priority;
            g.rank = priority;
        }

        // ---- a P that is taken from another M, in taking.zig ----

        const taking = @import("taking.zig").Taking(Self, Real);
        pub const lose = taking.lose;
        pub const found = taking.found;
        pub const retake = taking.retake;
        pub const inVain = taking.inVain;
        pub const reserve = taking.reserve;
        pub const giveUpP = taking.giveUpP;

        // ---- threads, in threads.zig ----

        const threads = @import("threads.zig").Threads(Self, Host, Real);
        pub const enlistM = threads.enlistM;
        pub const unlistM = threads.unlistM;
        pub const adoptThread = threads.adoptThread;
        pub const leaveThread = threads.leaveThread;
        pub const threadOf = threads.threadOf;
        pub const quitIdle = threads.quitIdle;
        pub const startM = threads.startM;
        pub const sendRunner = threads.sendRunner;
        pub const watchDebt = threads.watchDebt;
        pub const anyOnErrand = threads.anyOnErrand;
        pub const serve = threads.serve;
        pub const pushIdle = threads.pushIdle;
        pub const mainIsIdle = threads.mainIsIdle;
        pub const retire = threads.retire;
        pub const obtainM = threads.obtainM;
        pub const wakeM = threads.wakeM;
        pub const shareMask = threads.shareMask;
        pub const keepMask = threads.keepMask;
        pub const setMaskAgain = threads.setMaskAgain;

        // ---- goroutines with a thread of their own, in locked.zig ----

        const locked = @import("locked.zig").Locked(Self, Host, Real);
        pub const lockThread = locked.lockThread;
        pub const unlockThread = locked.unlockThread;
        pub const othersWait = locked.othersWait;
        pub const exitLocked = locked.exitLocked;
        pub const belongsElsewhere = locked.belongsElsewhere;
        pub const passP = locked.passP;
        pub const leaveP = locked.leaveP;
        pub const wakeLocked = locked.wakeLocked;

        // ---- goroutines that keep their thread while they are switched out, in keeping.zig ----

        const keeping = @import("keeping.zig").Keeping(Self, Host, Real);
        pub const keepsThread = keeping.keepsThread;
        pub const keepThread = keeping.keepThread;
        pub const stayOnThread = keeping.stayOnThread;
        pub const freeThread = keeping.freeThread;
        pub const bequeath = keeping.bequeath;

        // ---- contexts, in context.zig ----

        const contexts = context.Contexts(Self, Host);
        pub const attachContext = contexts.attachContext;
        pub const detachContext = contexts.detachContext;
        pub const armContext = contexts.armContext;
        pub const addContextTimer = contexts.addContextTimer;
        pub const expireContext = contexts.expireContext;
        pub const cancelContext = contexts.cancelContext;
        pub const watchContext = contexts.watchContext;

        // ---- events, in recording.zig ----

        const recording = @import("recording.zig").Recording(Self, Host);
        pub const notesGoroutines = recording.notesGoroutines;
        pub const record = recording.record;
        pub const recordSlow = recording.recordSlow;
        pub const notePark = recording.notePark;
        pub const noteReady = recording.noteReady;
        pub const time = recording.time;
        pub const noteTurn = recording.noteTurn;
        pub const noteBlock = recording.noteBlock;
        pub const noteUnblock = recording.noteUnblock;
        pub const lockAsked = recording.lockAsked;
        pub const noteLockWait = recording.noteLockWait;
        pub const noteOffer = recording.noteOffer;
        pub const waker = recording.waker;
        pub const recordTick = recording.recordTick;
        pub const postEvents = recording.postEvents;
        pub const flushSoon = recording.flushSoon;
        pub const hurry = recording.hurry;
        pub const hurryUp = recording.hurryUp;
        pub const stopEvents = recording.stopEvents;
        pub const forgetEvents = recording.forgetEvents;

        /// In the child of a fork: the threads are gone, the goroutines with them.
        pub fn forget(self: *Self) void {
            self.* = .{
                .gpa = self.gpa,
                .generation = self.generation +% 1,
                // One goes on on a stack of theirs.
                .options = self.options,
            };
        }
    };
}
