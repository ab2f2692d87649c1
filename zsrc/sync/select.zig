//! select: waits until one of several cases can go on, and does that one, with the semantics of
//! Go's runtime/select.go.
//!
//! The layer above says what a case is about: `Source`, a channel's `Case`, or a tagged union of
//! whatever can be waited for. It has
//!  - `poll(guard)`: does what the case is about, if that can be done at once;
//!  - `enqueue(who)`: queues the caller, which `who` names. The waiter lies in the case: which one
//!    was claimed tells which case it is;
//!  - `dequeue`: leaves the queue, after a wait that another case ended, or none. It takes the lock
//!    that it needs, one after the other: a goroutine that comes across a waiter meanwhile cannot
//!    claim it any more, and passes by;
//!  - `finish`: the wait has ended with this case: what came of it. `would_block` has the select
//!    look and wait again.
//! A poll and the queueing that follows happen at one instant. The `Guard` sees to that:
//!  - `hold` takes all locks that protect the sources, in the order of their addresses, so that two
//!    selects never wait for each other;
//!  - `release` lets them go, and wakes the waiters that a poll has taken out;
//!  - `unlocker` is what a wait lets them go with, once the caller can be woken. From then on it
//!    may be woken, and gone: nothing of the select is touched after the last lock;
//!  - `reserve` says whether there is the memory to wait; `enlist` and `resign` are called before
//!    and after a wait; `isInterrupted` before it waits another time.
const std = @import("std");
const WaitReason = @import("../core/wait.zig").WaitReason;
const Outcome = @import("chan.zig").Outcome;

pub fn Select(comptime Rt: type, comptime Source: type, comptime Guard: type) type {
    return struct {
        /// Which case ended the select; `index` means nothing if the outcome is a time-out or an
        /// interruption.
        pub const Selected = struct { index: usize, outcome: Outcome };

        /// Looks at the cases in the order given, a random one, and does the first that can be
        /// done.
        pub inline fn poll(cases: []Source, order: []const u16, guard: *Guard) ?Selected {
            guard.hold();
            defer guard.release();
            return look(cases, order, guard);
        }

        inline fn look(cases: []Source, order: []const u16, guard: *Guard) ?Selected {
            for (order) |at| {
                const outcome = cases[at].poll(guard);
                if (outcome != .would_block) return .{ .index = at, .outcome = outcome };
            }
            return null;
        }

        inline fn indexOf(waiter: *anyopaque, cases: []Source) usize {
            return (@intFromPtr(waiter) - @intFromPtr(cases.ptr)) / @sizeOf(Source);
        }

        /// As `poll`, and parks until a case can be done, or until `deadline`.
        pub fn wait(
            me: Rt.Me,
            cases: []Source,
            order: []const u16,
            guard: *Guard,
            reason: WaitReason,
            deadline: ?u64,
        ) Selected {
            while (true) {
                guard.hold();
                if (look(cases, order, guard)) |selected| {
                    guard.release();
                    return selected;
                }
                if (!guard.reserve()) {
                    guard.release();
                    return .{ .index = 0, .outcome = .interrupted };
                }
                var b: Rt.Blocker = undefined;
                b.init(me, true);
                guard.enlist(me);
                for (cases) |*case| case.enqueue(b.who());
                const wake = b.block(reason, deadline, guard.unlocker(), guard);
                guard.resign(me);
                const fired: ?usize = switch (wake) {
                    .ready, .closed => indexOf(b.fired(), cases),
                    .timeout, .interrupted => null,
                };
                for (cases, 0..) |*case, i| if (fired != i) case.dequeue();
                const index = fired orelse return .{
                    .index = 0,
                    .outcome = if (wake == .timeout) .timeout else .interrupted,
                };
                const outcome = cases[index].finish(wake);
                if (outcome != .would_block) return .{ .index = index, .outcome = outcome };
                // It was claimed already, so an interruption that came meanwhile had no effect on
                // it.
                if (guard.isInterrupted(me)) return .{ .index = 0, .outcome = .interrupted };
            }
        }
    };
}

/// Shuffles 0 to n - 1 into `order` as Fisher and Yates do; `random.random(n)` is a number below n.
pub inline fn shuffle(order: []u16, random: anytype) void {
    for (order, 0..) |*place, i| {
        const j = random.random(@intCast(i + 1));
        place.* = order[j];
        order[j] = @intCast(i);
    }
}

/// The guard of cases that all are of channels with locks; one that comes twice is locked once.
pub fn Locks(comptime Rt: type, comptime Case: type) type {
    return struct {
        const Self = @This();
        const planted = if (@hasDecl(Rt.Env, "planted")) Rt.Env.planted else .none;
        const Chan = @typeInfo(@typeInfo(@FieldType(Case, "chan")).optional.child).pointer.child;

        cases: []Case,
        /// For `hold` to fill: the cases by the addresses of their channels.
        order: []u16,
        woken: ?Rt.Who = null,

        inline fn at(l: *const Self, place: usize) ?*Chan {
            return l.cases[l.order[place]].chan;
        }

        /// A few are the rule.
        fn sort(l: *const Self) void {
            for (l.order, 0..) |*place, i| place.* = @intCast(i);
            if (l.cases.len > 16) return std.mem.sortUnstable(u16, l.order, l.cases, before);
            for (1..@max(1, l.cases.len)) |i| {
                const moving = l.order[i];
                var place = i;
                while (place > 0 and before(l.cases, moving, l.order[place - 1])) : (place -= 1)
                    l.order[place] = l.order[place - 1];
                l.order[place] = moving;
            }
        }

        fn before(cases: []Case, a: u16, b: u16) bool {
            if (planted == .locks_as_given) return false;
            return @intFromPtr(cases[a].chan) < @intFromPtr(cases[b].chan);
        }

        pub fn hold(l: *Self) void {
            l.sort();
            var last: ?*Chan = null;
            for (0..l.cases.len) |place| {
                const c = l.at(place) orelse continue;
                if (c != last) c.lock.lock();
                last = c;
            }
        }

        pub fn release(l: *Self) void {
            const woken = l.woken;
            l.woken = null;
            _ = unlock(l);
            if (woken) |other| Rt.wake(other);
        }

        /// A deadline may end a wait that no lock holds back before this comes.
        pub inline fn unlocker(l: *const Self) *const fn (*anyopaque) bool {
            // Cases without a channel come before all others.
            const locked = l.cases.len > 0 and l.at(l.cases.len - 1) != null;
            return if (locked) unlock else nothing;
        }

        fn nothing(_: *anyopaque) bool {
            return true;
        }

        /// A channel that comes twice is let go once.
        fn unlock(raw: *anyopaque) bool {
            const l: *Self = @ptrCast(@alignCast(raw));
            var place = l.cases.len;
            while (place > 0) {
                place -= 1;
                const c = l.at(place) orelse break;
                const next = if (place > 0) l.at(place - 1) else null;
                if (c != next) c.lock.unlock();
                if (next == null) break;
            }
            return true;
        }

        pub inline fn reserve(_: *const Self) bool {
            return true;
        }
        pub inline fn enlist(_: *const Self, _: Rt.Me) void {}
        pub inline fn resign(_: *const Self, _: Rt.Me) void {}
        pub inline fn isInterrupted(_: *const Self, _: Rt.Me) bool {
            return false; // a wait for a channel is over when it was claimed
        }
    };
}
