//! Currencies: ISO 4217, by their letters.

/// Whether `code` is a currency, in capitals.
pub fn is_currency(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()) && iso_currency::Currency::from_code(code).is_some()
}

/// How many decimals its amounts have; of what is no currency: none.
pub fn decimals(code: &str) -> u32 {
    iso_currency::Currency::from_code(code).and_then(|currency| currency.exponent()).unwrap_or(0).into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_currency_has_its_own_number_of_decimals() {
        assert_eq!(["VND", "EUR", "KWD", "nothing"].map(super::decimals), [0, 2, 3, 0]);
    }

    #[test]
    fn only_the_three_capital_letters_of_a_currency_are_one() {
        assert!(["VND", "EUR", "USD", "JPY"].into_iter().all(super::is_currency));
        assert!(["vnd", "XXQ", "", "VNDX", "V D", "₫"].into_iter().all(|code| !super::is_currency(code)));
    }
}
