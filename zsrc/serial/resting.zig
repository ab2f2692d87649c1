//! A lane at rest, between two runs of one kind.
//!
//! A test that is run under thousands of schedules would start and end a thread, map its stacks and
//! give them back for each, which takes far longer than the test. So a run that asks for it
//! (Options.keep), and has left nothing behind, ends with the lane at rest: the stacks, the rings
//! and sysmon are kept for the next one. All else begins anew. A run that has left something, were
//! it a thread or a stack, ends as any other does, and the next starts from nothing.
//!
//! sysmon looks at the lane without the host's lock, and finds nothing to look at while that is at
//! rest: its rounds and the change exclude each other (`State.round`). When the next run begins it
//! is not woken, but looks by itself within its longest sleep.
const std = @import("std");
const sysmon = @import("sysmon.zig");

/// What may differ between runs of one kind.
const own = [_][]const u8{ "seed", "explore_follows" };
/// What the next run finds as the last one left it. sysmon has an eye on the ticks and the times.
const kept = [_][]const u8{
    "gpa",        "options",  "stacks", "ring",       "sysmon_ring", "timers", "script",
    "rests",      "m_lock",   "sysmon", "generation", "tick",        "clock",  "last_poll",
    "offered_at", "tunables",
};

/// The part of a Lane that is about its rest. For `Env` see ending.zig.
pub fn Resting(comptime Lane: type, comptime Host: type, comptime Env: type) type {
    return struct {
        const Self = Lane;
        const M = Env.M;
        const Options = @FieldType(Lane, "options");
        const planted = if (@hasDecl(Env, "planted")) Env.planted else .none;

        /// On g0 of the M that called `run`, with the lock, when the main goroutine has ended.
        /// False if the run has to end otherwise.
        pub fn rest(self: *Self, m: *M) bool {
            if (!self.options.keep or self.options.event_mask != 0) return false;
            if (planted == .clean_before and !isClean(self, m)) return false;
            const s = &self.sysmon;
            if (planted != .rests_in_a_round) s.round.lock();
            defer if (planted != .rests_in_a_round) s.round.unlock();
            // Not sooner: in a round sysmon may start a thread.
            if (planted != .clean_before and !isClean(self, m)) return false;
            std.debug.assert(s.helpers.load(.monotonic) == 0 and self.reserves == 0);
            sysmon.setResting(self, true);
            self.owner.store(null, .release);
            @atomicStore(bool, &self.live, false, .release);
            self.virtual_ns = 0;
            _ = self.retire(m);
            @atomicStore(u32, &self.generation, self.generation +% 1, .release);
            self.leaveThread(m);
            Env.setCurrent(null);
            self.rests = true;
            return true;
        }

        /// Whether the run has left nothing behind, and no M is on the way to it.
        fn isClean(self: *Self, m: *M) bool {
            const owner = self.owner.load(.monotonic);
            return self.all_g == null and
                (owner == null or owner == m) and self.stacks.in_use == 0 and
                self.counters.threads.load(.acquire) == 1 and self.lost_count == 0 and
                self.timers.len() == 0 and self.poller == null and !self.runner_sent and
                self.net_waiters == 0 and self.outside_waiters == 0 and self.held == null and
                self.to_thread == null and !self.refused and m.locked_g == null and !m.handed and
                !self.signal_pending and !self.signal_for_main and Host.inbox.isEmpty();
        }

        /// The next run, if it is of the same kind.
        pub fn wakesFor(self: *Self, options: Options) bool {
            if (!self.rests) return false;
            const fields = @typeInfo(Options).@"struct";
            inline for (fields.field_names) |name| {
                if (comptime isOneOf(name, &own)) continue;
                if (@field(options, name) != @field(self.options, name)) return false;
            }
            const s = &self.sysmon;
            if (planted != .begins_in_a_round) s.round.lock();
            defer if (planted != .begins_in_a_round) s.round.unlock();
            const default: Self = .{ .gpa = self.gpa };
            inline for (@typeInfo(Self).@"struct".field_names) |name| {
                if (comptime isOneOf(name, &kept)) continue;
                @field(self, name) = @field(default, name);
            }
            inline for (own) |name| @field(self.options, name) = @field(options, name);
            self.rests = false;
            sysmon.setResting(self, false);
            return true;
        }

        /// Undoes wakesFor: the run could not begin.
        pub fn restAgain(self: *Self) void {
            const s = &self.sysmon;
            s.round.lock();
            defer s.round.unlock();
            sysmon.setResting(self, true);
            self.rests = true;
        }

        /// Between runs, with the host's lock, which sysmon does not need: nothing is kept.
        pub fn endRest(self: *Self) void {
            if (!self.rests) return;
            self.rests = false;
            sysmon.stop(self);
            self.dispose();
        }

        fn isOneOf(comptime name: []const u8, comptime names: []const []const u8) bool {
            @setEvalBranchQuota(10_000);
            for (names) |each| if (std.mem.eql(u8, name, each)) return true;
            return false;
        }
    };
}
