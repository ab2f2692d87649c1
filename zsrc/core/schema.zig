//! What golibx/schema.py says of the keys that may change while a run goes on, read when the
//! library is compiled: there is one list of them, their ranges and defaults, and Python has it.
//!
//! Of the text this reads the lines of `Table(` and `Key(` in the form that `ruff format` gives
//! them, and nothing else of Python. Anything unexpected in a tunable key is a compile error.
const std = @import("std");

const text = @embedFile("schema");

pub const Key = struct {
    /// As in golib.toml: "preempt.slice".
    path: [:0]const u8,
    /// Key.option, the field of Tunables.
    option: [:0]const u8,
    /// Of the numbers here: " ns", or none.
    unit: [:0]const u8,
    default: u64,
    lowest: u64,
    highest: u64,
    /// What 0 means, where it is allowed besides the range; else empty.
    zero: []const u8,
    /// Of the key that it must not exceed; else empty.
    at_most: []const u8,
    /// The range for people, as Key.allowed.
    allowed: [:0]const u8,
};

pub const keys: [count]Key = read();

/// Of an argument of a Key.
const indent = "            ";

/// So many lines of the text say it; each has to be one of a key's.
const count = count: {
    @setEvalBranchQuota(20 * text.len);
    break :count std.mem.count(u8, text, "\n" ++ indent ++ "tunable=True,\n");
};

const Reading = struct {
    table: []const u8 = "",
    name: []const u8 = "",
    kind: []const u8 = "",
    default: []const u8 = "",
    low: []const u8 = "",
    high: []const u8 = "",
    zero: []const u8 = "",
    option: []const u8 = "",
    at_most: []const u8 = "",
    tunable: bool = false,
};

fn read() [count]Key {
    @setEvalBranchQuota(100 * text.len);
    var found: [count]Key = undefined;
    var n: usize = 0;
    var lines = std.mem.splitScalar(u8, text, '\n');
    var table: []const u8 = "";
    while (lines.next()) |line| {
        if (std.mem.eql(u8, line, "    Table(")) table = unquoted(lines.next().?);
        if (!std.mem.eql(u8, line, "        Key(")) continue;
        const r = readKey(table, &lines);
        if (!r.tunable) continue;
        found[n] = keyOf(r);
        n += 1;
    }
    if (n != count) fail("?", "'tunable=True' stands at the end of something else than a key");
    return found;
}

fn readKey(table: []const u8, lines: *std.mem.SplitIterator(u8, .scalar)) Reading {
    var r: Reading = .{ .table = table };
    r.name = unquoted(lines.next().?);
    r.kind = unquoted(lines.next().?);
    r.default = unquoted(lines.next().?);
    while (lines.next()) |line| {
        if (std.mem.eql(u8, line, "        ),")) return r;
        // Not the lines of a value that takes several.
        if (!std.mem.startsWith(u8, line, indent) or line[indent.len] == ' ') continue;
        const argument = line[indent.len..];
        const name_end = std.mem.indexOfScalar(u8, argument, '=') orelse continue;
        const name = argument[0..name_end];
        for (.{ "low", "high", "zero", "option", "at_most" }) |field| {
            if (std.mem.eql(u8, name, field))
                @field(r, field) = unquoted(argument[name_end + 1 ..]);
        }
        if (std.mem.eql(u8, argument, "tunable=True,")) r.tunable = true;
    }
    fail(r.name, "it has no end");
}

/// A string or number of one line.
fn unquoted(value: []const u8) []const u8 {
    return std.mem.trim(u8, std.mem.trim(u8, value, " ,"), "\"");
}

fn keyOf(comptime r: Reading) Key {
    const path = r.table ++ "." ++ r.name;
    if (!std.mem.eql(u8, r.kind, "duration") and !std.mem.eql(u8, r.kind, "int"))
        fail(path, "only an int or a duration can be tunable");
    if (r.option.len == 0) fail(path, "a tunable key needs option=");
    const range = r.low ++ " to " ++ r.high;
    return .{
        .path = path ++ "",
        .option = r.option ++ "",
        .unit = if (std.mem.eql(u8, r.kind, "duration")) " ns" else "",
        .default = numberOf(path, r.default),
        .lowest = numberOf(path, r.low),
        .highest = numberOf(path, r.high),
        .zero = r.zero,
        .at_most = if (r.at_most.len == 0) "" else r.table ++ "." ++ r.at_most,
        .allowed = if (r.zero.len == 0) range ++ "" else range ++ ", or 0: " ++ r.zero,
    };
}

const units = .{
    .{ "ns", 1 },
    .{ "us", std.time.ns_per_us },
    .{ "ms", std.time.ns_per_ms },
    .{ "s", std.time.ns_per_s },
    .{ "m", std.time.ns_per_min },
};

/// As golibx/values.py reads it, in nanoseconds if it has a unit.
fn numberOf(comptime path: []const u8, comptime written: []const u8) u64 {
    var digits = written.len;
    while (digits > 0 and !std.ascii.isDigit(written[digits - 1])) digits -= 1;
    const unit = written[digits..];
    const scale: u64 = if (unit.len == 0) 1 else for (units) |each| {
        if (std.mem.eql(u8, unit, each[0])) break each[1];
    } else fail(path, "no unit " ++ unit);
    const number = std.fmt.parseInt(u64, written[0..digits], 10) catch
        fail(path, "not a whole number: " ++ written);
    return number * scale;
}

fn fail(comptime path: []const u8, comptime problem: []const u8) noreturn {
    @compileError("golibx/schema.py: key " ++ path ++ ": " ++ problem);
}

test "a duration is read as Python reads it" {
    inline for (.{
        .{ "20us", 20_000 },
        .{ "10s", 10_000_000_000 },
        .{ "0s", 0 },
        .{ "10_000", 10_000 },
        .{ "1m", 60_000_000_000 },
    }) |each| {
        try std.testing.expectEqual(each[1], comptime numberOf("a test's", each[0]));
    }
}

test "the keys are those that golibx/schema.py has" {
    const slice = for (keys) |key| {
        if (std.mem.eql(u8, key.path, "preempt.slice")) break key;
    } else unreachable;
    try std.testing.expectEqualStrings("preempt_slice_ns", slice.option);
    try std.testing.expectEqualStrings("10us to 1m", slice.allowed);
    for (keys) |key| {
        try std.testing.expect(key.lowest < key.highest and key.default <= key.highest);
        const off = key.default == 0 and key.zero.len > 0;
        try std.testing.expect(key.default >= key.lowest or off);
    }
}
