//! Currencies: ISO 4217, by their letters.

/// Whether `code` is a currency, in capitals.
pub fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) && iso_currency::Currency::from_code(code).is_some()
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_the_three_capital_letters_of_a_currency_are_one() {
        assert!(["VND", "EUR", "USD", "JPY"].into_iter().all(super::is_currency));
        assert!(["vnd", "XXQ", "", "VNDX", "V D", "₫"].into_iter().all(|code| !super::is_currency(code)));
    }
}
