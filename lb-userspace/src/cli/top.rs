//! `lb top`: services and backends with their rates, on the whole terminal.

use super::{Agent, status};
use crate::{
    api::client,
    rates::{Rates, short},
    status::Status,
};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use ratatui::{
    Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Cell, Paragraph, Row, Table, TableState},
};
use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

/// How soon a key has its effect.
const KEYS: Duration = Duration::from_millis(50);
/// Lines for the ways out of the path that most packets take.
const WAYS: u16 = 5;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Seconds from one look to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    interval: u32,
    #[command(flatten)]
    agent: Agent,
}

/// What is shown.
struct View {
    status: Status,
    rates: Rates,
    /// Why it is not of now, if it is not.
    stale: Option<String>,
    table: TableState,
}

pub(super) async fn top(TopArgs { interval, agent }: TopArgs) -> Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("`lb top` needs a terminal; `lb stats --watch` does not");
    }
    let status: Status = client::get(&agent.socket, "/status").await?;
    let rates = Rates::between(&status, &status, Duration::from_secs(1));
    let mut view = View { status, rates, stale: None, table: TableState::default() };
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let shown = async {
        let mut at = Instant::now();
        loop {
            terminal.draw(|frame| view.draw(frame)).context("cannot draw on this terminal")?;
            if view.wait(at + Duration::from_secs(interval.into()))? {
                return Ok(());
            }
            if at.elapsed() < Duration::from_secs(interval.into()) {
                continue;
            }
            match client::get(&agent.socket, "/status").await {
                Ok(status) => {
                    view.rates = Rates::between(&view.status, &status, at.elapsed());
                    (view.status, view.stale, at) = (status, None, Instant::now());
                }
                Err(error) => (view.stale, at) = (Some(format!("{error:#}")), Instant::now()),
            }
        }
    };
    let shown: Result<()> = shown.await;
    ratatui::try_restore().context("cannot restore the terminal")?;
    shown
}

impl View {
    /// Waits for a key, at most until then; says whether it ends.
    fn wait(&mut self, until: Instant) -> Result<bool> {
        while Instant::now() < until {
            if !event::poll(KEYS)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(true),
                    KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(true),
                    KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
                    KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
                    KeyCode::PageDown => self.table.scroll_down_by(10),
                    KeyCode::PageUp => self.table.scroll_up_by(10),
                    KeyCode::Home => self.table.select_first(),
                    KeyCode::End => self.table.select_last(),
                    _ => (),
                },
                _ => (),
            }
            return Ok(false);
        }
        Ok(false)
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let layout = Layout::vertical([
            Constraint::Length(3),
            Constraint::Min(4),
            Constraint::Length(WAYS + 1),
            Constraint::Length(1),
        ]);
        let [head, table, ways, keys] = layout.areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        self.draw_table(frame, table);
        frame.render_widget(Paragraph::new(self.ways()), ways);
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(" q quit   up, down scroll").style(style), keys);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let Status { version, uptime_seconds, interfaces, dns, tracked_flows, .. } = &self.status;
        let interfaces: Vec<_> = interfaces
            .iter()
            .map(|one| format!("{} {}", one.name, if one.index.is_some() { "attached" } else { "detached" }))
            .collect();
        let first = match &self.stale {
            Some(reason) => Line::styled(reason.clone(), Style::new().fg(Color::Red)),
            None => Line::from(format!("lb {version}, up {uptime_seconds} s   {}", interfaces.join("   "))),
        };
        let packets: f64 = self.rates.services.iter().map(|service| service.packets).sum();
        let bytes: f64 = self.rates.services.iter().map(|service| service.bytes).sum();
        let of_services = format!(
            "services  {} packets/s   {} bytes/s   {tracked_flows} tracked flows",
            short(packets),
            short(bytes)
        );
        let (kernel, agent) = (short(self.rates.dns_by_kernel), short(self.rates.dns_by_agent));
        let of_dns = format!(
            "dns       {kernel} answers/s by the kernel   {agent} by the agent   {} answers held",
            dns.answers_in_kernel
        );
        vec![first, of_services.into(), of_dns.into()]
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let mut rows = Vec::new();
        for (service, rates) in self.status.services.iter().zip(&self.rates.services) {
            let up = service.backends.iter().filter(|backend| backend.serving).count();
            let state = format!("{up} of {}", service.backends.len());
            let name = format!("{}  {} {}", service.name, service.protocol, status::address(service.address));
            let flows: u64 = service.backends.iter().map(|backend| backend.flows).sum();
            let cells = [name, state, String::new(), short(rates.packets), short(rates.bytes), flows.to_string()];
            rows.push(row(cells).style(bold));
            for (backend, rates) in service.backends.iter().zip(&rates.backends) {
                let state = backend.state();
                let colour = match state.as_str() {
                    "up" => Color::Green,
                    "down" => Color::Red,
                    _ => Color::Yellow,
                };
                let (packets, bytes) = (short(rates.packets), short(rates.bytes));
                let (weight, flows) = (backend.weight.to_string(), backend.flows.to_string());
                let cells = [format!("  {}", rates.backend), state, weight, packets, bytes, flows];
                rows.push(row(cells).style(Style::new().fg(colour)));
            }
        }
        let header = row(["service, backend", "state", "weight", "packets/s", "bytes/s", "flows"].map(Into::into));
        let widths = [
            Constraint::Min(24),
            Constraint::Length(9),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(8),
        ];
        let table = Table::new(rows, widths)
            .header(header.style(Style::new().add_modifier(Modifier::UNDERLINED)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    fn ways(&self) -> Vec<Line<'static>> {
        let mut ways: Vec<_> = self.rates.packets.iter().collect();
        ways.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let lines = ways.into_iter().take(WAYS.into());
        let lines = lines.map(|(why, rate)| Line::from(format!("  {why:<30} {:>9}/s", short(*rate))));
        [Line::from("packets by the way they left")].into_iter().chain(lines).collect()
    }
}

/// Words at the left, numbers at the right.
fn row([name, state, weight, packets, bytes, flows]: [String; 6]) -> Row<'static> {
    let words = [name, state].map(Line::from);
    let numbers = [weight, packets, bytes, flows].map(|number| Line::from(number).right_aligned());
    Row::new(words.into_iter().chain(numbers).map(Cell::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::sample;
    use ratatui::{Terminal, backend::TestBackend};

    fn view() -> View {
        let (before, mut status) = (sample(), sample());
        status.interfaces[0].name = "eth0".into();
        status.services[0].backends[0].packets += 1_500;
        status.services[0].backends[0].bytes += 2_000_000;
        status.dns.answered_by_kernel += 800;
        *status.packets.get_mut("forwarded_dsr").unwrap() += 1_500;
        *status.packets.get_mut("no_service").unwrap() += 20;
        let rates = Rates::between(&before, &status, Duration::from_secs(1));
        View { status, rates, stale: None, table: TableState::default() }
    }

    fn drawn(view: &mut View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| view.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y: u16| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn all_of_it_fits_a_terminal_of_80_by_24() {
        let lines = drawn(&mut view(), 80, 24);
        let expected = [
            "lb 0.1.0, up 60 s   eth0 attached",
            "services  1.5k packets/s   2.0M bytes/s   4 tracked flows",
            "dns       800 answers/s by the kernel   0 by the agent   2 answers held",
        ];
        assert_eq!(lines[..3], expected, "{lines:#?}");
        let header: Vec<_> = lines[3].split_whitespace().collect();
        assert_eq!(header, ["service,", "backend", "state", "weight", "packets/s", "bytes/s", "flows"]);
        let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(row(&lines[4]), ["web", "tcp", "192.0.2.10:80", "2", "of", "2", "1.5k", "2.0M", "6"]);
        assert_eq!(row(&lines[5]), ["10.0.0.1:80", "up", "2", "1.5k", "2.0M", "3"]);
        assert_eq!(row(&lines[6]), ["[fd00::1]:80", "unknown", "2", "0", "0", "3"]);
        assert_eq!(row(&lines[18]), ["forwarded_dsr", "1.5k/s"]);
        assert_eq!(row(&lines[19]), ["no_service", "20/s"]);
        assert_eq!(lines[23], " q quit   up, down scroll");
    }

    #[test]
    fn more_than_fits_is_scrolled_to() {
        let mut view = view();
        let service = view.status.services[0].clone();
        let rates = view.rates.services[0].clone();
        for number in 0..30 {
            let mut service = service.clone();
            service.name = format!("service-{number}");
            view.status.services.push(service);
            view.rates.services.push(rates.clone());
        }
        assert!(drawn(&mut view, 80, 24).iter().all(|line| !line.contains("service-29")));
        view.table.select_last();
        assert!(drawn(&mut view, 80, 24).iter().any(|line| line.contains("[fd00::1]:80")));
        for (width, height) in [(20, 5), (1, 1), (300, 100)] {
            drawn(&mut view, width, height);
        }
        view.stale = Some("no agent answers".into());
        assert_eq!(drawn(&mut view, 80, 24)[0], "no agent answers");
    }
}
