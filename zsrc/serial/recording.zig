//! The events of a serial lane, and the pump's note: when hooks are told of them.
//!
//! The P writes its ring; sysmon and threads without the lock have the pump look by posting. The
//! pump is a goroutine of the runtime's own (golibx/runtime.py); it is woken when the flush
//! interval is over after the first event that it has not seen, or the P's ring is half full.
const std = @import("std");
const os = @import("../os/os.zig");
const counter = @import("../os/counter.zig");
const event = @import("../event/event.zig");
const g_mod = @import("g.zig");
const timer_mod = @import("timer.zig");
const inbox = @import("inbox.zig");

const G = g_mod.G;
const M = @import("m.zig").M;
const Timer = timer_mod.Timer;

/// The part of a Lane that is about its events.
pub fn Recording(comptime Lane: type, comptime Host: type) type {
    return struct {
        const Self = Lane;

        pub inline fn notesGoroutines(self: *const Self) bool {
            return self.ring.wants(.goroutine_start) or self.ring.wants(.goroutine_exit);
        }

        pub inline fn record(self: *Self, kind: event.Kind, id: u64, a: u64, b: u32) void {
            if (self.ring.wants(kind)) _ = self.recordSlow(kind, id, a, b);
        }

        /// For a kind that is wanted. False if it was dropped.
        ///
        /// Nearly all of them are recorded here without a call, so that no registers are saved.
        pub noinline fn recordSlow(self: *Self, kind: event.Kind, id: u64, a: u64, b: u32) bool {
            if (!counter.isTrusted()) return recordBySystem(self, kind, id, a, b);
            return recordAt(self, counter.read(), kind, id, a, b);
        }

        noinline fn recordBySystem(self: *Self, kind: event.Kind, id: u64, a: u64, b: u32) bool {
            return recordAt(self, os.nanotime(), kind, id, a, b);
        }

        inline fn recordAt(
            self: *Self,
            time_ticks: u64,
            kind: event.Kind,
            id: u64,
            a: u64,
            b: u32,
        ) bool {
            // With the host's lock, as its consumer has it.
            const pushed = self.ring.pushLocked(time_ticks, kind, id, a, b);
            if (pushed == .next and !self.ring.isHalfFull()) return true;
            return tellPump(self, pushed);
        }

        noinline fn tellPump(self: *Self, pushed: event.Pushed) bool {
            if (pushed == .first) self.flushSoon();
            if (self.ring.isHalfFull()) self.hurry();
            return pushed != .dropped;
        }

        /// The pump, if it waits, is woken in the next turn: before its time is over the rest of
        /// the ring may be full, too. Not from here, where a goroutine may be between two states.
        pub noinline fn hurry(self: *Self) void {
            if (self.events_note == null or self.events_hurry or self.options.explore) return;
            self.events_hurry = true;
            self.askAttention();
        }

        /// What `hurry` has asked for.
        pub fn hurryUp(self: *Self) void {
            self.events_hurry = false;
            wakePump(self);
        }

        /// Those of the runtime's own, the pump among them, would never come to an end.
        pub noinline fn notePark(self: *Self, g: *G) void {
            const now = counter.read();
            self.parked_ticks = now;
            if (!g.system)
                _ = recordAt(self, now, .goroutine_park, g.id, 0, @backingInt(g.reason));
        }

        pub noinline fn noteReady(self: *Self, g: *G, by: u64) void {
            if (g.system) return;
            if (g.status == .idle or !self.ring.recordsReady()) {
                if (self.ring.times()) self.time(g);
                return;
            }
            const now = counter.read();
            if (self.ring.times() and isToBeTimed(self, g)) timeFrom(g, now);
            _ = recordAt(self, now, .goroutine_ready, g.id, by, 0);
        }

        /// It waits for its turn from here on.
        pub noinline fn time(self: *Self, g: *G) void {
            if (isToBeTimed(self, g)) timeFrom(g, counter.read());
        }

        /// Not one of the runtime's own, whose `placed` others may have set; not the stand-in of a
        /// thread. Latencies are not those of virtual time.
        inline fn isToBeTimed(self: *Self, g: *G) bool {
            if (g.thread != null) return false;
            g.sampled = self.ring.measures() and self.virtual_ns == 0 and self.latency.chooses();
            return g.sampled or self.ring.wants(.goroutine_run);
        }

        inline fn timeFrom(g: *G, now_ticks: u64) void {
            g.ready_at = now_ticks;
            g.timed = true;
            g.placed = true;
        }

        /// The timer that has made it ready was due at `when`: it waits since then. The counter is
        /// read after the clock: a thread that loses its CPU in between would have it wait from
        /// before `when` otherwise, when it may still have run.
        pub noinline fn timeSince(g: *G, when: u64) void {
            const late = counter.ticksOf(os.nanotime() -| when);
            g.ready_at = counter.read() -| late;
        }

        /// Whether a goroutine is being switched out that has just been noted to park: to read the
        /// counter again would cost as much as the switch takes.
        inline fn followsPark(self: *const Self) bool {
            const g = self.running orelse return false;
            return g.status == .parking and self.ring.wants(.goroutine_park);
        }

        /// It is about to run, on the thread that it belongs to.
        pub noinline fn noteTurn(self: *Self, g: *G) void {
            const now = if (followsPark(self)) self.parked_ticks else counter.read();
            const waited = counter.nsOf(now -| g.ready_at);
            if (g.sampled) self.latency.note(waited);
            g.timed = false;
            g.placed = g == self.main_g or g.locked_m != null;
            if (self.ring.wants(.goroutine_run))
                _ = recordAt(self, now, .goroutine_run, g.id, waited, 0);
        }

        /// It has lost its P to a blocking call that goes on since then, or gives it up for one. If
        /// it was on its way back it is the same call still.
        pub noinline fn noteBlock(self: *Self, g: *G, since: u64) void {
            if (g.blocked_at != 0) return;
            g.blocked_at = since;
            if (g.system or !self.ring.wants(.goroutine_block)) return;
            const place = Host.keepPlace(g);
            if (!self.recordSlow(.goroutine_block, g.id, os.nanotime() -| since, place))
                Host.dropPlace(place);
        }

        /// It has a P again, which it wants since `came`, monotonic ns. That is of no matter where
        /// the event is not wanted.
        pub noinline fn noteUnblock(self: *Self, g: *G, came: u64) void {
            const since = g.blocked_at;
            g.blocked_at = 0;
            if (since == 0 or g.system or !self.ring.wants(.goroutine_unblock)) return;
            const both: event.Two = .of(came -| since, os.nanotime() -| came);
            _ = self.recordSlow(.goroutine_unblock, g.id, both.a, both.b);
        }

        /// Since when the host's lock is waited for, monotonic ns; 0 where that is not wanted.
        /// With the lock or without.
        pub inline fn lockAsked(self: *const Self) u64 {
            return if (self.ring.wants(.gil_wait)) os.nanotime() else 0;
        }

        /// The M has the lock, and the P if the lane has waited with it. But one that takes that
        /// from a goroutine which ran on had to wait for it.
        pub noinline fn noteLockWait(self: *Self, m: *M) void {
            const waited = m.lock_waited_ns;
            m.lock_waited_ns = 0;
            if (self.owner.load(.monotonic) == m) tellLockWait(self, waited, false);
        }

        /// The lock was let go for others, and is back.
        pub noinline fn noteOffer(self: *Self, asked: u64) void {
            tellLockWait(self, os.nanotime() -| asked, true);
        }

        fn tellLockWait(self: *Self, waited: u64, offered: bool) void {
            if (waited < self.options.hooks_gil_wait_min_ns) return;
            const g = self.running;
            const id = if (offered and g != null and !g.?.system) g.?.id else 0;
            self.record(.gil_wait, id, waited, @intFromBool(offered));
        }

        /// The goroutine on whose behalf the P is used: not one that is about to leave it.
        pub fn waker(self: *const Self) u64 {
            const g = self.running orelse return 0;
            return if (g.status == .running) g.id else 0;
        }

        /// sysmon's, without the lock.
        pub fn recordTick(self: *Self, slept_ns: u64, idle_rounds: u32) void {
            if (self.sysmon_ring.push(.sysmon_tick, 0, slept_ns, idle_rounds)) self.postEvents();
        }

        /// There is something in a ring that was empty and that the P does not write. Any thread,
        /// without the lock, and signal handlers.
        pub fn postEvents(self: *Self) void {
            if (!events_posted.swap(true, .seq_cst)) self.post(&events_entry);
        }

        /// Not of the Lane, which a new run clears: the entry may be on its way then.
        var events_entry: inbox.Entry = .{ .arrive = eventsArrived };
        var events_posted: std.atomic.Value(bool) = .init(false);

        fn eventsArrived(_: *inbox.Entry) void {
            // Before the pump looks, so that whoever is too late for that posts again.
            events_posted.store(false, .seq_cst);
            Host.lane().flushSoon();
        }

        /// The pump, if it waits, is woken when the flush interval is over.
        pub fn flushSoon(self: *Self) void {
            if (!self.live or self.events_note == null or self.events_timer.pending()) return;
            self.events_timer.when = self.now() + self.options.hooks_flush_interval_ns;
            self.events_timer.fire = flushEvents;
            self.timers.add(self.gpa, &self.events_timer) catch {};
        }

        fn flushEvents(_: *Timer) callconv(.c) void {
            wakePump(Host.lane());
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
            wakePump(self);
        }

        /// In the child of a fork, where the inbox is empty.
        pub fn forgetEvents(_: *Self) void {
            events_posted.store(false, .monotonic);
        }
    };
}
